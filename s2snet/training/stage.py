"""Share what all stages need: optimiser and schedule from the recipe, and a random state that follows from the step."""

import math
from collections.abc import Iterable
from dataclasses import asdict

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from s2snet.config.recipe import Recipe
from s2snet.training.loaders import derived_seed

OPTIMISERS = {
    "adam": lambda parameters, recipe: torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay),
    "adamw": lambda parameters, recipe: torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay),
    "sgd": lambda parameters, recipe: torch.optim.SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    ),
}

# Factor on lr at the share `done` of all steps, in [0, 1].
SCHEDULES = {
    "constant": lambda done: 1.0,
    "poly": lambda done: max(0.0, 1 - done) ** 0.9,
    "cosine": lambda done: 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item()),
    "one_cycle": lambda done: one_cycle(done),
}


def one_cycle(done: float, rising: float = 0.3) -> float:
    """Return the factor of the one-cycle policy (arXiv 1708.07120): up linearly, then down along half a cosine."""
    if done < rising:
        return max(done, 1e-2) / rising
    return 0.5 * (1 + math.cos((done - rising) / (1 - rising) * math.pi))


def lr_factor(step: int, steps: int, schedule: str, warmup: int) -> float:
    """Return the factor on lr at optimiser step `step` of `steps`: linear up to 1 over `warmup`, then the schedule."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return SCHEDULES[schedule]((step - warmup) / (steps - warmup))


class Stage(pl.LightningModule):
    """A Lightning module that trains one module, `trained`, by a recipe."""

    trained: nn.Module

    def __init__(self, recipe: Recipe, seed: int):
        super().__init__()
        self.save_hyperparameters({"recipe": asdict(recipe), "seed": seed})
        self.recipe, self.seed = recipe, seed
        self._losses: list[Tensor] = []  # of the batches since the last optimiser step

    def train(self, mode: bool = True) -> "Stage":
        """Set training mode. With the recipe's `batch_norm: eval`, BatchNorm stays in eval mode."""
        super().train(mode)
        if self.recipe.batch_norm == "eval":
            for module in self.trained.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def on_fit_start(self) -> None:
        self.train()

    def compiled(self) -> Iterable[nn.Module]:
        """Return the modules that a training step calls, for `trainer.compile`."""
        return [self.trained]

    def parameters_to_train(self) -> Iterable[nn.Parameter]:
        """Return the parameters that the optimiser changes."""
        return self.trained.parameters()

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor] | None:
        """Return a name and images to show next to the originals; None if the stage produces no images."""
        return None

    def configure_optimizers(self):
        optimiser = OPTIMISERS[self.recipe.optimiser](self.parameters_to_train(), self.recipe)
        steps = self.total_steps()
        name, warmup = self.recipe.schedule, self.recipe.warmup
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: lr_factor(step, steps, name, warmup))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def total_steps(self) -> int:
        """Return the optimiser steps of the whole run."""
        # Not trainer.estimated_stepping_batches: it creates the loaders before a resumed run has restored their state.
        return self.trainer.max_epochs * self.trainer.datamodule.steps(self.trainer.world_size)

    def on_train_batch_start(self, batch, batch_index) -> None:
        # Follows from the step, so that a resumed run draws the same dropout: checkpoints hold no random state.
        accumulate = self.recipe.accumulate
        step = self.global_step * accumulate + batch_index % accumulate
        torch.manual_seed(derived_seed(self.seed, step, self.global_rank))

    def log_loss(self, loss: Tensor) -> None:
        """Log the mean over the batches of an optimiser step and over the ranks, as one large batch would show it."""
        self._losses.append(loss.detach())
        if len(self._losses) == self.recipe.accumulate:
            self.log("loss", torch.stack(self._losses).mean(), prog_bar=True, sync_dist=True)
            self._losses.clear()

    def validation_step(self, batch, batch_index) -> None:
        for name, metric in self.measure(batch).items():
            self.log(f"val_{name}", metric, on_epoch=True, prog_bar=True, batch_size=len(batch[0]), sync_dist=True)
