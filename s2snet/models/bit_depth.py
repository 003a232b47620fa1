"""A purifier without weights: fewer bits per pixel (feature squeezing, Xu et al., arXiv 1704.01155, section III-A)."""

import math

import torch
from torch import Tensor, nn


class BitDepth(nn.Module):
    """A purifier: images [B, C, H, W] in [0, 1] -> the same rounded to `bits` bits: multiples of 1 / (2 ** bits - 1).

    Rounding is flat between its steps, so the exact gradient is 0 almost everywhere. An attacker goes around it by
    `soft` or by the identity.
    """

    softens = True

    def __init__(self, bits: int = 3):
        super().__init__()
        if type(bits) is not int or not 1 <= bits <= 8:
            raise ValueError(f"bits={bits}: expected an integer from 1 to 8")
        self.steps = 2**bits - 1

    def forward(self, images: Tensor) -> Tensor:
        return torch.round(images * self.steps) / self.steps

    def soft(self, images: Tensor, temperature: float) -> Tensor:
        """Return the same output bit for bit, differentiated as soft rounding (arXiv 2006.09952, section 4.1).

        The slope is highest at the threshold between two steps and averages 1 from step to step. A high temperature
        makes it 1 everywhere (straight-through); as the temperature falls to 0 it vanishes away from the thresholds.
        """
        scaled = images * self.steps
        beyond = scaled - scaled.detach().floor() - 0.5  # of the threshold, in steps: from -1/2 to 1/2
        width = 2 * temperature
        soft = torch.tanh(beyond / width) / (2 * math.tanh(0.5 / width)) / self.steps
        return self(images.detach()) + (soft - soft.detach())
