"""Perturbations at a given normalised L2, smallest budgets, and mutual information of images."""

import numpy as np
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn

from s2snet.analysis.batched import right
from s2snet.attacks import Noise, fmn, pgd
from s2snet.attacks.balls import spread

BATCH = 64  # images of about equal length


def lengths(images: Tensor) -> Tensor:
    """Return ||x||2 of each image in [0, 1] units, float64 [n]: the unit of a normalised L2."""
    return images.double().flatten(1).norm(dim=1)


def normalised_l2(adversarial: Tensor, images: Tensor) -> Tensor:
    """Return ||x' - x||2 / ||x||2 of each image, float64 [n]; 0 for an image that is black and stays so."""
    moved = (adversarial.double() - images.double()).flatten(1).norm(dim=1)
    return torch.where(moved > 0, moved / lengths(images), 0)


def to_level(adversarial: Tensor, images: Tensor, level: float) -> Tensor:
    """Return the images moved along x' - x until ||x'' - x||2 / ||x||2 is `level`, within [0, 1]; like images.

    Pixels that reach an end of the box stay there while the others move on, so the level is met to a relative 1e-4 if
    the box has room along that direction. An image that the attack did not move stays.
    """
    delta = adversarial - images
    goal = level * lengths(images)
    most = images.flatten(1).shape[1] ** 0.5  # the largest distance of two images
    largest = delta.flatten(1).abs().amax(dim=1).clamp(min=1e-12)
    low, high = torch.zeros_like(goal), (most / largest).double()
    for _ in range(48):  # the distance rises with the factor: bisection
        middle = (low + high) / 2
        moved = (images + spread(middle.to(delta.dtype), delta) * delta).clamp(0, 1)
        beyond = (moved - images).double().flatten(1).norm(dim=1) > goal
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return (images + spread(low.to(delta.dtype), delta) * delta).clamp(0, 1)


def craft(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    level: float,
    steps: int = 20,
    loss: str = "margin",
    seed: int = 0,
) -> Tensor:
    """Return adversarial images at normalised L2 `level` of each image itself, like images.

    PGD takes one radius per batch, so a batch has images of about equal length and the radius of their mean; then each
    perturbation is scaled to its own image's level (`to_level`). steps + 1 forwards, steps backwards each.
    """
    adversarial = images.clone()
    length = lengths(images)
    for rows in length.argsort().split(BATCH):
        eps = level * float(length[rows].mean())
        perturbed = pgd(
            module,
            images[rows],
            labels[rows],
            eps=eps,
            norm="l2",
            steps=steps,
            loss=loss,
            noise=Noise(seed, index[rows.cpu()]),
        )
        adversarial[rows] = to_level(perturbed, images[rows], level)
    return adversarial


def budgets(module: nn.Module, images: Tensor, labels: Tensor, steps: int = 40) -> Tensor:
    """Return the smallest normalised L2 that fools the module itself, as FMN finds it, float64 [n].

    If FMN fails, it is the distance of the box's farthest corner, an upper bound for any attack.
    """
    adversarial = torch.cat(
        [
            fmn(module, part, label, steps=steps)
            for part, label in zip(images.split(256), labels.split(256), strict=True)
        ]
    )
    distance = normalised_l2(adversarial, images)
    farthest = normalised_l2((images < 0.5).to(images.dtype), images)
    return torch.where(right(module, adversarial, labels), farthest, distance)


def mutual_information(images: Tensor, purified: Tensor, bins: int = 32) -> np.ndarray:
    """Return the normalised mutual information of each image [n, C, H, W] and its purified version, float64 [n].

    It is that of the joint histogram of 8-bit pixels in `bins` equal bins, per channel, averaged over channels;
    purified images are clipped to [0, 1]. It is 1 for an image and itself. Few pixels in many bins raise it: compare
    values for equal sizes and bins only.
    """
    first, second = (
        ((x.clamp(0, 1) * 255).round().long() * bins // 256).flatten(2).cpu().numpy() for x in (images, purified)
    )
    return np.array(
        [
            np.mean([normalized_mutual_info_score(a, b) for a, b in zip(one, other, strict=True)])
            for one, other in zip(first, second, strict=True)
        ]
    )
