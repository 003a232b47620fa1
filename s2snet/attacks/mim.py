"""The momentum iterative method: steps along a running sum of gradients (Dong et al.: arXiv 1710.06081)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball, spread
from s2snet.attacks.gradients import Best, Passes, Prober
from s2snet.attacks.noise import Noise


def mim(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    momentum: float = 1.0,
    loss: str = "cross_entropy",
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """The best iterate of `steps` steps, each along `momentum` x the last sum of gradients + the gradient.

    `step_size` is in pixel units and defaults to eps / steps, the paper's. Not random. Costs draws x (steps +
    1 forwards, steps backwards), less where images leave early. Section 3.2 of the paper, algorithm 1.
    """
    check(images, labels, targets, norm, mim.norms, eps, steps=steps, draws=draws)
    step_size = eps / steps if step_size is None else step_size
    noise = Noise() if noise is None else noise
    with untouched(model, noise.seed):
        images = images.detach().clone()
        ball = near = Ball(images, eps, norm)
        best = Best(images)
        prober = Prober(model, labels, targets, loss, draws, passes)
        rows = torch.arange(len(images), device=images.device)
        x, total = images, torch.zeros_like(images)
        for _ in range(steps):
            if not len(rows):
                break
            fools, value, gradient = prober.gradient(x, rows)
            best.see(rows, x, fools, value)
            if leave_early and fools.any():
                rows, x, gradient, total = rows[~fools], x[~fools], gradient[~fools], total[~fools]
                near = ball.rows(rows)
            # gradients enter at l1 length 1; doubles, since those of confident models sum up below float32's
            # range
            length = gradient.double().abs().flatten(1).sum(dim=1)
            scaled = gradient.double() / spread(torch.where(length > 0, length, 1), gradient)
            total = momentum * total + scaled.to(gradient.dtype)
            x = near.project(x + step_size * near.steepest(total, x))
        if len(rows):
            best.see(rows, x, *prober.look(x, rows))
        return best.images


mim.version, mim.norms, mim.minimal = 1, ("linf", "l2"), False
