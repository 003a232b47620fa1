"""A purifier that projects images onto a linear subspace and replaces the rest by its mean over training images."""

import torch
from torch import Tensor, nn


class Subspace(nn.Module):
    """Images [B, C, H, W] -> Q Qᵀ images + residue: a projection (arXiv 1807.04200), linear and not clipped.

    `basis` [C * size * size, dimensions] has orthonormal columns Q; `residue` [C, size, size] is the mean over training
    images of what the projection removes. Both are buffers, filled from a weights file or by `set`; initially the basis
    is the first pixels and the residue 0.
    """

    def __init__(self, channels: int = 1, size: int = 32, dimensions: int = 1):
        super().__init__()
        pixels = channels * size * size
        if not 1 <= dimensions <= pixels:
            raise ValueError(
                f"dimensions={dimensions}: expected 1 to {pixels}, the number of values of {channels} x {size} x {size}"
            )
        self.shape = (channels, size, size)
        self.register_buffer("basis", torch.eye(pixels, dimensions))
        self.register_buffer("residue", torch.zeros(self.shape))

    def set(self, basis: Tensor, images: Tensor) -> "Subspace":
        """Set the basis, and the residue to its mean over these training images [N, C, H, W]; return the module."""
        self.basis.copy_(basis)
        self.residue.zero_()
        self.residue.copy_(images.mean(dim=0) - self(images.mean(dim=0, keepdim=True))[0])
        return self

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.shape:
            given, expected = (" x ".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise ValueError(f"wrong shape for this subspace: expected images of {expected}, got {given}")
        flat = images.flatten(1)
        return (flat @ self.basis @ self.basis.T).view_as(images) + self.residue
