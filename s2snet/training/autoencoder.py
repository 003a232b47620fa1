"""Train stage 1: the autoencoder learns to reconstruct images, without labels (arXiv 1803.07994)."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.image import peak_signal_noise_ratio

from s2snet.config.recipe import Stage1Recipe
from s2snet.training.stage import Stage


class TrainAutoencoder(Stage):
    """Mean squared error per pixel between A(x) and x, both in [0, 1] units."""

    def __init__(self, autoencoder: nn.Module, recipe: Stage1Recipe, seed: int):
        super().__init__(recipe, seed)
        self.trained = autoencoder

    def training_step(self, batch, batch_index) -> Tensor:
        images, _, _ = batch
        loss = functional.mse_loss(self.trained(images), images)
        self.log_loss(loss)
        return loss

    def measure(self, batch) -> dict[str, Tensor]:
        """Return squared error and PSNR (dB, mean over images) of one validation batch."""
        images, _, _ = batch
        with torch.no_grad():
            reconstructed = self.trained(images)
        return {
            "loss": functional.mse_loss(reconstructed, images),
            # per image: the PSNR of the batch's pooled error would be a lower number
            "psnr": peak_signal_noise_ratio(reconstructed, images, data_range=1.0, dim=(1, 2, 3)),
        }

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
        return "purified", self.trained(images)
