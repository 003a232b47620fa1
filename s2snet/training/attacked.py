"""Train on attacked images: the inner attack, its radius, and the watch on it, for the stages that need them."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from s2snet.attacks import ATTACKS, TRAINING, Noise, fgsm, pgd
from s2snet.config.choices import choose
from s2snet.config.recipe import AttackedRecipe
from s2snet.training.classifier import accuracy
from s2snet.training.loaders import derived_seed
from s2snet.training.stage import Stage


class AttackedStage(Stage):
    """A stage whose examples are crafted against the current weights, in eval mode, at a radius that may rise."""

    recipe: AttackedRecipe

    def __init__(self, recipe: AttackedRecipe, seed: int):
        super().__init__(recipe, seed)
        choose("the recipe's attack", recipe.attack, ATTACKS | TRAINING)

    def source(self) -> nn.Module:
        """Return the module that the inner attack differentiates."""
        raise NotImplementedError

    def attacked(self, images: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Return the inner attack's images. Random numbers follow from (seed, step, image index).

        The trained module is in eval mode meanwhile: the attack sees the network that will be deployed, and no
        BatchNorm statistic is taken of half-made images.
        """
        attack, options = (ATTACKS | TRAINING)[self.recipe.attack], self.recipe.attack_options or {}
        noise = Noise(derived_seed(self.seed, self.global_step), index)
        self.trained.eval()
        try:
            return attack(self.source(), images, labels, eps=self.radius(), noise=noise, **options)
        finally:
            self.train(self.training)

    def radius(self) -> float:
        """Return the inner attack's eps: it rises linearly from 0 over the first `ramp` of all optimiser steps.

        The loss of a fragile classifier under attack is huge at first; a purifier needs time to reduce it.
        """
        rising = self.recipe.ramp * self.total_steps() if self.recipe.ramp else 0
        return self.recipe.eps * min(1.0, (self.global_step + 1) / rising) if rising else self.recipe.eps

    def watch(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Return the accuracy under FGSM and PGD-10 at the full radius."""
        source, noise, eps = self.source(), Noise(self.seed, index), self.recipe.eps
        single = fgsm(source, images, labels, eps=eps, noise=noise)
        several = pgd(source, images, labels, eps=eps, steps=10, noise=noise)
        with torch.no_grad():
            return {
                "fgsm_accuracy": accuracy(source(single), labels),
                "robust_accuracy": accuracy(source(several), labels),
            }

    def labels_of(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the labels that validation counts by."""
        return labels

    def validation_step(self, batch, batch_index) -> None:
        super().validation_step(batch, batch_index)
        left = self.recipe.watched - batch_index * self.trainer.val_dataloaders.batch_size
        if not self.recipe.attacks or left <= 0:
            return
        images, labels, index = (item[:left] for item in batch)
        for name, metric in self.watch(images, self.labels_of(images, labels), index).items():
            self.log(f"val_{name}", metric, on_epoch=True, prog_bar=True, batch_size=len(images), sync_dist=True)


class CollapseWatch(pl.Callback):
    """Stop at catastrophic overfitting: the single-step attack is beaten, the iterated one no longer.

    Wong et al. (arXiv 2001.03994, section 5) describe it. It has happened if accuracy under FGSM exceeds that under
    PGD-10 by 15 points, or the latter falls below half of its best. Runs on what is validated, the averaged weights if
    there are any; the best epoch's weights are restored by the loop.
    """

    GAP = 0.15

    def __init__(self, report):
        self.report, self.best = report, 0.0

    def on_validation_end(self, trainer: pl.Trainer, stage: pl.LightningModule) -> None:
        single = float(trainer.callback_metrics["val_fgsm_accuracy"])
        several = float(trainer.callback_metrics["val_robust_accuracy"])
        self.best = max(self.best, several)
        if single - several > self.GAP or several < self.best / 2:
            trainer.should_stop = True
            self.report(
                f"catastrophic overfitting in epoch {trainer.current_epoch}: accuracy under FGSM {single:.1%}, under "
                f"PGD-10 {several:.1%}, at best {self.best:.1%}; stopping, the best epoch is kept. Use "
                "attack=nfgsm or pgd, a smaller lr, or a longer ramp"
            )

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best = state["best"]
