"""Exponential moving average of the weights: what is validated, kept as the best, and saved."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor


class Average(Callback):
    """After each optimiser step: average = decay average + (1 - decay) weights, from the first step's weights on.

    BatchNorm's statistics are averaged alike; frozen weights stay what they are, bit for bit. While validation runs
    the average is in the module's place. A checkpoint's `state_dict` has the average, for whoever reads it, and
    `training` the weights that a resumed run goes on from. Costs one copy of the trained module.

    Not Lightning's own: that one rounds frozen weights away from their values, and averages on the CPU.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, stage: LightningModule, outputs, batch, batch_index: int) -> None:
        if (batch_index + 1) % trainer.accumulate_grad_batches:
            return
        weights = stage.trained.state_dict()
        if not self.average:
            self.average = {name: tensor.clone() for name, tensor in weights.items()}
            return
        for name, tensor in weights.items():
            kept = self.average[name] = self.average[name].to(tensor.device)  # a checkpoint's come on the CPU
            if tensor.is_floating_point():
                kept.lerp_(tensor, 1 - self.decay)  # exact where both are equal
            else:
                kept.copy_(tensor)

    def on_validation_start(self, trainer: Trainer, stage: LightningModule) -> None:
        self.swap(stage)

    def on_validation_end(self, trainer: Trainer, stage: LightningModule) -> None:
        self.swap(stage)  # before the checkpoints' own hook: Lightning calls those last

    def swap(self, stage: LightningModule) -> None:
        """Exchanges the average and the weights of the module under training."""
        weights = stage.trained.state_dict()
        for name, kept in self.average.items():
            weights[name], before = kept, weights[name].clone()
            self.average[name] = before
        stage.trained.load_state_dict(weights)

    def on_save_checkpoint(self, trainer: Trainer, stage: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["training"] = stage.trained.state_dict()
        averaged = {f"trained.{name}": tensor for name, tensor in self.average.items()}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **averaged}

    def on_load_checkpoint(self, trainer: Trainer, stage: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.average = {name: checkpoint["state_dict"][f"trained.{name}"].clone() for name in checkpoint["training"]}
        with torch.no_grad():
            stage.trained.load_state_dict(checkpoint["training"])
