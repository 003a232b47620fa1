"""Forward passes, gradients and random points that several probes need, and how they are summarised."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.attacks.losses import margin


def logits_of(module: nn.Module, images: Tensor) -> Tensor:
    """Return the logits [B, K] in float32, without gradients."""
    with torch.no_grad():
        return module(images).float()


def margin_of(module: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the best wrong class leads, float64 [B]."""
    return margin(logits_of(module, points), labels).double()


def plain_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return torch's cross-entropy [B]. Unlike that of s2snet.attacks, it loses its gradient when it rounds to 0."""
    return functional.cross_entropy(logits, labels, reduction="none")


def gradient(module: nn.Module, points: Tensor, labels: Tensor, loss: Callable = margin) -> Tensor | None:
    """Return the gradient of the loss, shaped like `points`; None if no gradient reaches them."""
    return value_and_gradient(lambda x: loss(module(x), labels), points)[1]


def value_and_gradient(function: Callable[[Tensor], Tensor], points: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the values [B] of a function and their gradients, shaped like `points`; None if none reaches them."""
    x = points.detach().requires_grad_(True)
    with torch.enable_grad():
        values = function(x)
        slope = None
        if values.requires_grad:
            (slope,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    return values.detach(), slope


def random_points(images: Tensor, eps: float, draw: torch.Generator, corners: bool = False) -> Tensor:
    """Return the images at random points of the linf ball, or at random corners of it; clipped to [0, 1]."""
    shift = 2 * torch.rand(images.shape, generator=draw) - 1
    return (images + eps * (shift.sign() if corners else shift).to(images)).clamp(0, 1)


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference over the largest entry; infinite if one is NaN and the other is not."""
    if not torch.equal(one.isnan(), other.isnan()):
        return float("inf")
    one, other = one.nan_to_num(), other.nan_to_num()
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-30))


def share(mask: Tensor) -> float:
    """Return the share of True, 0 for an empty mask."""
    return float(mask.double().mean()) if len(mask) else 0.0


def digest(tensor: Tensor) -> str:
    """Return a hash of the tensor's bytes."""
    return hashlib.blake2b(
        tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes(), digest_size=16
    ).hexdigest()
