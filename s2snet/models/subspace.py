"""A purifier that keeps of an image what lies in a linear subspace, and puts the training images' mean in place of
the rest."""

import torch
from torch import Tensor, nn


class Subspace(nn.Module):
    """Images [B, C, H, W] -> Q Qᵀ images + residue: a projection (arXiv 1807.04200), linear and not clipped.

    `basis` [C * size * size, dimensions] has orthonormal columns Q; `residue` [C, size, size] is the mean of what the
    projection takes from training images. Both are buffers, filled by a weights file or by `set`; built new, the
    basis is the first pixels and the residue 0.
    """

    def __init__(self, channels: int = 1, size: int = 32, dimensions: int = 1):
        super().__init__()
        pixels = channels * size * size
        if not 1 <= dimensions <= pixels:
            raise ValueError(f"dimensions={dimensions}: from 1 to {pixels}, the pixels of {channels} x {size} x {size}")
        self.shape = (channels, size, size)
        self.register_buffer("basis", torch.eye(pixels, dimensions))
        self.register_buffer("residue", torch.zeros(self.shape))

    def set(self, basis: Tensor, images: Tensor) -> "Subspace":
        """Takes this basis, and the mean of what it leaves of these training images [N, C, H, W]; returns itself."""
        self.basis.copy_(basis)
        self.residue.zero_()
        self.residue.copy_(images.mean(dim=0) - self(images.mean(dim=0, keepdim=True))[0])
        return self

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.shape:
            given, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise ValueError(f"a subspace of images of {wanted} was given images of {given}")
        flat = images.flatten(1)
        return (flat @ self.basis @ self.basis.T).view_as(images) + self.residue
