"""Normalise inside the networks, so that every network takes images in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalisation(nn.Module):
    """(images - mean) / std per channel; `undo` is its inverse.

    A single value applies to all channels. Both are buffers and are saved with the weights.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: int):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            values = [float(value) for value in values]
            if len(values) not in (1, channels):
                raise ValueError(
                    f"{name}={values} has {len(values)} values; expected one, or as many as channels, {channels} "
                    "(data.mean, data.std)"
                )
            if name == "std" and min(values) <= 0:
                raise ValueError(f"std={values}: expected values above 0")
            values = values * channels if len(values) == 1 else values
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def undo(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean


class Normalised(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> the output of `network`, which expects them normalised."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], channels: int):
        super().__init__()
        self.normalisation = Normalisation(mean, std, channels)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalisation(images))
