"""Fills for removed pixels: the data's mean, a blur of the image, or inpainting from the surrounding pixels.

A fill takes images [B, C, H, W], `hole` [B, 1, H, W] of ones (removed pixels) and zeros, the data's mean [C, 1, 1] and
a width in pixels. It returns images of the same shape, of which only the values in the hole are used. All are
differentiable in the images and deterministic on every device.
"""

import torch
from torch import Tensor
from torch.nn import functional

from s2snet.models.regions import smooth

SWEEPS = 32  # of the inpainting; a hole 8 pixels across is then within a gray level of the harmonic function


def mean(images: Tensor, hole: Tensor, data_mean: Tensor, width: float) -> Tensor:
    """Return the data's mean colour."""
    return data_mean.expand_as(images)


def blur(images: Tensor, hole: Tensor, data_mean: Tensor, width: float) -> Tensor:
    """Return the image blurred by a Gaussian of `width` pixels. An attacker can use the hole: its pixels are read."""
    return smooth(images, width)


def inpaint(images: Tensor, hole: Tensor, data_mean: Tensor, width: float) -> Tensor:
    """Return approximately the harmonic function whose boundary values are the kept pixels; the hole is not read.

    Starts from a pyramid of means over kept pixels (pull-push: Gortler et al., The Lumigraph, 1996, section 3.4). Then,
    SWEEPS times, each pixel of the hole becomes the mean of its four neighbours. An image that is all hole becomes 0.
    """
    keep = 1 - hole
    filled = _pull_push(images * keep, keep)
    for _ in range(SWEEPS):
        filled = images * keep + _neighbours(filled) * hole
    return filled


def _pull_push(values: Tensor, weights: Tensor) -> Tensor:
    """Fill in the unknown values [B, C, H, W], those of `weights` [B, 1, H, W] below 1, from coarser levels.

    `weights` are in [0, 1], and `values` are already multiplied by them.
    """
    height, width = values.shape[2:]
    if height == width == 1:
        return values / weights.clamp(min=1e-6)
    even = (0, width % 2, 0, height % 2)
    coarse_values, coarse_weights = (functional.avg_pool2d(functional.pad(x, even), 2) * 4 for x in (values, weights))
    surplus = coarse_weights.clamp(min=1)  # a coarse pixel has at most the weight of one known pixel
    coarse = _pull_push(coarse_values / surplus, coarse_weights / surplus)
    spread = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[:, :, :height, :width]
    return values + (1 - weights) * spread


def _neighbours(x: Tensor) -> Tensor:
    """Return the mean of each pixel's four neighbours; a neighbour outside the image is the pixel itself."""
    down = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
    up = torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
    right = torch.cat([x[:, :, :, :1], x[:, :, :, :-1]], dim=3)
    left = torch.cat([x[:, :, :, 1:], x[:, :, :, -1:]], dim=3)
    return (down + up + right + left) / 4


FILLS = {"mean": mean, "blur": blur, "inpaint": inpaint}
