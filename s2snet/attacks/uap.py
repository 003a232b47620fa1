"""One perturbation for all images, by stochastic projected gradient ascent (arXiv 1610.08401, 1811.11304)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread, unit
from s2snet.attacks.gradients import Prober


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
    """The perturbation [C, H, W] of at most `eps` that moves as many images as it can over the boundary.

    `batches` gives training images [b, C, H, W] in [0, 1] with labels int64 [b], one batch a step, at least one. Each
    step goes along the gradient of the mean loss of images + perturbation, cut to the box; an image whose loss is
    above `cap` pulls no more (as Shafahi et al., section 3: else those that are fooled rule the rest).
    Steps are `step_size` long (null: 10 eps / steps) at first and fall to 0. It is universal (Moosavi-Dezfooli et al.):
    made on training images, for images that it has not seen. Costs steps x draws forwards and backwards of a batch.
    """
    for name, count in (("steps", steps), ("draws", draws)):
        if count < 1:
            raise ValueError(f"{name}={count}: at least 1")
    if step_size is not None and not step_size > 0:
        raise ValueError(f"step_size={step_size}: above 0")
    length = 10 * eps / steps if step_size is None else step_size
    delta = None
    with untouched(model):
        for step, (images, labels) in zip(range(steps), batches, strict=False):
            check(images, labels, None, norm, uap.norms, eps)
            if delta is None:
                delta = images.new_zeros(1, *images.shape[1:])
            moved = images + delta
            prober = Prober(model, labels, None, loss, draws)
            _, value, gradient = prober.gradient(moved.clamp(0, 1), torch.arange(len(images), device=images.device))
            pulls = spread(value < cap, images) & (moved >= 0) & (moved <= 1)
            along = torch.where(pulls, gradient, 0).sum(dim=0, keepdim=True)
            along = along.sign() if norm == "linf" else unit(along)
            delta = delta + length * (1 - step / steps) * along
            if norm == "linf":
                delta = delta.clamp(-eps, eps)
            else:
                delta = delta * (eps / delta.norm().clamp(min=1e-30)).clamp(max=1)
    if delta is None:
        raise ValueError("a universal perturbation needs training images, and there are none")
    return delta[0]


uap.version, uap.norms, uap.minimal, uap.random = 1, ("linf", "l2"), False, True
