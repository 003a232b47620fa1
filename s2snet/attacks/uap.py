"""Fit one perturbation for all images by stochastic projected gradient ascent (arXiv 1610.08401, 1811.11304)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread, unit
from s2snet.attacks.gradients import Objective


def uap(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 200,
    step_size: float | None = None,
    loss: str = "margin",
    cap: float = 1.0,
    draws: int = 1,
) -> Tensor:
    """Return a perturbation [C, H, W] of norm at most `eps` that is fitted to fool as many images as possible.

    The perturbation is universal (Moosavi-Dezfooli et al.): it is fitted to training images and applied to unseen ones.
    Each step follows the gradient of the summed loss of images + perturbation, clipped to [0, 1].

    Args:
        model: Maps images to logits [b, K] with K > 1.
        batches: Training images [b, C, H, W] in [0, 1] with labels int64 [b]; one batch per step, at least one.
        eps: Radius in pixel units, on the [0, 1] scale.
        norm: "linf" or "l2".
        steps: Maximum number of steps.
        step_size: Length of the first step in pixel units; decays linearly to 0. Default: 10 eps / steps.
        loss: Name of a loss in LOSSES.
        cap: Images with a larger loss contribute no gradient, or those already fooled would dominate (Shafahi et al.,
            section 3).
        draws: Number of passes that each gradient is averaged over.

    Cost: steps x draws forwards and backwards of a batch.
    """
    for name, count in (("steps", steps), ("draws", draws)):
        if count < 1:
            raise ValueError(f"{name}={count}: at least 1")
    if step_size is not None and not step_size > 0:
        raise ValueError(f"step_size={step_size}: must be above 0")
    length = 10 * eps / steps if step_size is None else step_size
    delta = None
    with untouched(model):
        for step, (images, labels) in zip(range(steps), batches, strict=False):
            check(images, labels, None, norm, uap.norms, eps)
            if delta is None:
                delta = images.new_zeros(1, *images.shape[1:])
            moved = images + delta
            objective = Objective(model, labels, None, loss, draws)
            _, value, gradient = objective.gradient(moved.clamp(0, 1), torch.arange(len(images), device=images.device))
            contributes = spread(value < cap, images) & (moved >= 0) & (moved <= 1)
            direction = torch.where(contributes, gradient, 0).sum(dim=0, keepdim=True)
            direction = direction.sign() if norm == "linf" else unit(direction)
            delta = delta + length * (1 - step / steps) * direction
            if norm == "linf":
                delta = delta.clamp(-eps, eps)
            else:
                delta = delta * (eps / delta.norm().clamp(min=1e-30)).clamp(max=1)
    if delta is None:
        raise ValueError("batches: expected at least one batch of training images, got none")
    return delta[0]


uap.version, uap.norms, uap.minimal, uap.random = 1, ("linf", "l2"), False, True
