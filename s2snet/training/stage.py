"""What all stages share: optimiser and schedule from the recipe, and a random state that follows from the step."""

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
}


def lr_factor(step: int, steps: int, schedule: str, warmup: int) -> float:
    """The factor on lr at optimiser step `step` of `steps`: a line up to 1 over `warmup` steps, then the schedule."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return SCHEDULES[schedule]((step - warmup) / (steps - warmup))


class Stage(pl.LightningModule):
    """A Lightning module with one module under training, `trained`, and a recipe of plain names and numbers."""

    trained: nn.Module

    def __init__(self, recipe: Recipe, seed: int):
        super().__init__()
        self.save_hyperparameters({"recipe": asdict(recipe), "seed": seed})
        self.recipe, self.seed = recipe, seed
        self._losses: list[Tensor] = []  # of the batches since the last optimiser step

    def train(self, mode: bool = True) -> "Stage":
        """Training mode; with the recipe's `batch_norm: eval` BatchNorm stays in eval mode, its statistics as is."""
        super().train(mode)
        if self.recipe.batch_norm == "eval":
            for module in self.trained.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def on_fit_start(self) -> None:
        self.train()

    def compiled(self) -> Iterable[nn.Module]:
        """The modules that a training step calls, which `trainer.compile` compiles."""
        return [self.trained]

    def parameters_to_train(self) -> Iterable[nn.Parameter]:
        return self.trained.parameters()

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor] | None:
        """What a picture shows beside the images, with its name; None where the stage makes no images."""
        return None

    def configure_optimizers(self):
        optimiser = OPTIMISERS[self.recipe.optimiser](self.parameters_to_train(), self.recipe)
        # Not trainer.estimated_stepping_batches, which makes the loaders too early to be told where to go on from.
        steps = self.trainer.max_epochs * self.trainer.datamodule.steps(self.trainer.world_size)
        name, warmup = self.recipe.schedule, self.recipe.warmup
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: lr_factor(step, steps, name, warmup))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch, batch_index) -> None:
        # Checkpoints hold no random state; one that follows from the step needs none (dropout, and a resumed run).
        accumulate = self.recipe.accumulate
        step = self.global_step * accumulate + batch_index % accumulate
        torch.manual_seed(derived_seed(self.seed, step, self.global_rank))

    def log_loss(self, loss: Tensor) -> None:
        """Logs the mean over the batches of an optimiser step and over the ranks: what one large batch would show."""
        self._losses.append(loss.detach())
        if len(self._losses) == self.recipe.accumulate:
            self.log("loss", torch.stack(self._losses).mean(), prog_bar=True, sync_dist=True)
            self._losses.clear()

    def validation_step(self, batch, batch_index) -> None:
        for name, metric in self.measure(batch).items():
            self.log(f"val_{name}", metric, on_epoch=True, prog_bar=True, batch_size=len(batch[0]), sync_dist=True)
