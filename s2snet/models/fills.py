"""What is put into the pixels of an image that are taken out: a mean, a blur, or what their surroundings say.

A fill takes images [B, C, H, W], `hole` [B, 1, H, W] of ones (taken out) and zeros, the data's mean [C, 1, 1] and a
width in pixels, and gives images like the first whose values count in the hole only. All are differentiable in the
images, and deterministic on every device.
"""

import torch
from torch import Tensor
from torch.nn import functional

from s2snet.models.regions import smooth

SWEEPS = 32  # of the inpainting; a hole of 8 pixels across is then within a grey level of the harmonic one


def mean(images: Tensor, hole: Tensor, data_mean: Tensor, width: float) -> Tensor:
    """The data's mean colour."""
    return data_mean.expand_as(images)


def blur(images: Tensor, hole: Tensor, data_mean: Tensor, width: float) -> Tensor:
    """The image after a Gaussian of `width` pixels. It reads the hole too: an attacker keeps some say there."""
    return smooth(images, width)


def inpaint(images: Tensor, hole: Tensor, data_mean: Tensor, width: float) -> Tensor:
    """Near the harmonic function with the kept pixels as its border: it reads nothing of what is in the hole.

    A pyramid of means over kept pixels (pull-push: Gortler et al., The Lumigraph, 1996, section 3.4) begins; SWEEPS
    times each pixel of the hole then becomes the mean of its four neighbours. An image that is all hole becomes 0.
    """
    keep = 1 - hole
    filled = _pull_push(images * keep, keep)
    for _ in range(SWEEPS):
        filled = images * keep + _neighbours(filled) * hole
    return filled


def _pull_push(values: Tensor, weights: Tensor) -> Tensor:
    """Values [B, C, H, W], known where `weights` [B, 1, H, W] in [0, 1] are above 0, with the rest from coarser levels.

    `values` are already multiplied by their weights.
    """
    height, width = values.shape[2:]
    if height == width == 1:
        return values / weights.clamp(min=1e-6)
    even = (0, width % 2, 0, height % 2)
    coarse_values, coarse_weights = (functional.avg_pool2d(functional.pad(x, even), 2) * 4 for x in (values, weights))
    surplus = coarse_weights.clamp(min=1)  # a coarse pixel knows no more than one pixel can
    coarse = _pull_push(coarse_values / surplus, coarse_weights / surplus)
    spread = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[:, :, :height, :width]
    return values + (1 - weights) * spread


def _neighbours(x: Tensor) -> Tensor:
    """The mean of the four neighbours; beyond the rim the pixel itself."""
    down = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
    up = torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
    right = torch.cat([x[:, :, :, :1], x[:, :, :, :-1]], dim=3)
    left = torch.cat([x[:, :, :, 1:], x[:, :, :, -1:]], dim=3)
    return (down + up + right + left) / 4


FILLS = {"mean": mean, "blur": blur, "inpaint": inpaint}
