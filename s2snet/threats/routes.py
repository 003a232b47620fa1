"""Routes: how gradients pass through a purifier. The forward value is always the real one, bit for bit.

A route is a function from a defended module to a source; a new one is one function and one line in ROUTES.
"""

import torch
from torch import Tensor, nn

from s2snet.models import Defended


class _StraightThrough(torch.autograd.Function):
    """Forward: the purified images. Backward: as if they were the images themselves."""

    @staticmethod
    def forward(ctx, images: Tensor, purified: Tensor) -> Tensor:
        return purified.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class IdentityRoute(nn.Module):
    """A defended module whose purifier is differentiated as the identity."""

    def __init__(self, defended: Defended):
        super().__init__()
        self.defended = defended

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            purified = self.defended.purifier(images)
        return self.defended.classifier(_StraightThrough.apply(images, purified))


def exact(defended: Defended) -> nn.Module:
    """Autograd as it is, end to end."""
    return defended


def identity(defended: Defended) -> nn.Module:
    """BPDA with the identity (Athalye et al., arXiv 1802.00420, section 4.1): for purifiers near the identity.

    Saves the purifier's backward pass.
    """
    return IdentityRoute(defended)


ROUTES = {"exact": exact, "identity": identity}
