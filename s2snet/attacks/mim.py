"""Implement the momentum iterative method, which follows a running sum of gradients (Dong et al., arXiv 1710.06081)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball, spread
from s2snet.attacks.gradients import Best, Objective, Passes
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
    """Return the best iterate of steps along a running sum of gradients (section 3.2, algorithm 1).

    The arguments shared by all attacks are described in `s2snet.attacks`.

    Args:
        steps: Number of gradient steps.
        step_size: Step length in pixel units. Default: eps / steps, as in the paper.
        momentum: Factor of the previous sum in the next one.

    Cost: draws x (steps + 1 forwards, steps backwards), less if images leave early. Not random.
    """
    check(images, labels, targets, norm, mim.norms, eps, steps=steps, draws=draws)
    step_size = eps / steps if step_size is None else step_size
    noise = Noise() if noise is None else noise
    with untouched(model, noise.seed):
        images = images.detach().clone()
        ball = active_ball = Ball(images, eps, norm)
        best = Best(images)
        objective = Objective(model, labels, targets, loss, draws, passes)
        rows = torch.arange(len(images), device=images.device)
        x, total = images, torch.zeros_like(images)
        for _ in range(steps):
            if not len(rows):
                break
            fools, value, gradient = objective.gradient(x, rows)
            best.update(rows, x, fools, value)
            if leave_early and fools.any():
                rows, x, gradient, total = rows[~fools], x[~fools], gradient[~fools], total[~fools]
                active_ball = ball.rows(rows)
            # scale gradients to l1 norm 1, in float64: gradients of confident models underflow in float32
            length = gradient.double().abs().flatten(1).sum(dim=1)
            scaled = gradient.double() / spread(torch.where(length > 0, length, 1), gradient)
            total = momentum * total + scaled.to(gradient.dtype)
            x = active_ball.project(x + step_size * active_ball.steepest(total, x))
        if len(rows):
            best.update(rows, x, *objective.evaluate(x, rows))
        return best.images


mim.version, mim.norms, mim.minimal = 1, ("linf", "l2"), False
