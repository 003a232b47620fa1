"""Choose the class that a targeted attack aims at, image by image."""

import torch
from torch import Tensor, nn

from s2snet.attacks import Noise


def following(module: nn.Module, images: Tensor, labels: Tensor, classes: int, noise: Noise) -> Tensor:
    """Return the class after the label; after the last class the first."""
    return (labels + 1) % classes


def random(module: nn.Module, images: Tensor, labels: Tensor, classes: int, noise: Noise) -> Tensor:
    """Draw a class other than the label uniformly, from (seed, image)."""
    drawn = noise.uniform(images.flatten(1)[:, :1], torch.arange(len(images)), draw=3)[:, 0]
    return (labels + 1 + (drawn * (classes - 1)).long().clamp(max=classes - 2)) % classes


def least_likely(module: nn.Module, images: Tensor, labels: Tensor, classes: int, noise: Noise) -> Tensor:
    """Return the class other than the label with the smallest logit of the source. One forward."""
    with torch.no_grad():
        return module(images).scatter(1, labels[:, None], torch.inf).argmin(dim=1)


TARGETS = {"next": following, "random": random, "least_likely": least_likely}
