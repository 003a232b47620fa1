"""Implement projected gradient descent from random starts (Madry et al., arXiv 1706.06083)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball
from s2snet.attacks.gradients import Best, Objective, Passes
from s2snet.attacks.noise import Noise


def pgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
    sparsity: float = 0.01,
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return the best iterate of several runs of projected gradient steps.

    The arguments shared by all attacks are described in `s2snet.attacks`.

    Args:
        steps: Number of gradient steps per run.
        step_size: Step length in pixel units. Default: 2.5 eps / steps, long enough to reach the surface of the ball
            and leave it again.
        restarts: Number of runs.
        random_start: Start uniformly in the ball (l2: uniform in direction and in length), drawn from `noise`. If
            False, start at the image.
        sparsity: Fraction of the coordinates that an l1 step changes. The default is that of Tramer and Boneh
            (arXiv 1904.13000): on 60 digits it leaves 19 correctly classified, 0.05 leaves 30.

    Cost: restarts x draws x (steps + 1 forwards, steps backwards), less if images leave early.
    """
    check(images, labels, targets, norm, pgd.norms, eps, steps=steps, restarts=restarts, draws=draws)
    if not 0 < sparsity <= 1:
        raise ValueError(f"sparsity={sparsity}: must be above 0 and at most 1")
    step_size = 2.5 * eps / steps if step_size is None else step_size
    noise = Noise() if noise is None else noise
    with untouched(model, noise.seed):
        images = images.detach().clone()
        ball = Ball(images, eps, norm, sparsity)
        best = Best(images)
        objective = Objective(model, labels, targets, loss, draws, passes)
        for restart in range(restarts):
            rows = torch.nonzero(~best.fools if leave_early else torch.ones_like(best.fools)).squeeze(1)
            active_ball = ball.rows(rows)
            # in l2, short steps from inside the ball fool more images than those from its noisy surface
            x = active_ball.start(noise, rows, restart, inner=True) if random_start else active_ball.images
            for _ in range(steps):
                if not len(rows):
                    break
                fools, value, gradient = objective.gradient(x, rows)
                best.update(rows, x, fools, value)
                if leave_early and fools.any():
                    rows, x, gradient = rows[~fools], x[~fools], gradient[~fools]
                    active_ball = ball.rows(rows)
                x = active_ball.project(x + step_size * active_ball.steepest(gradient, x))
            if len(rows):
                best.update(rows, x, *objective.evaluate(x, rows))
        return best.images


pgd.version, pgd.norms, pgd.minimal = 3, ("linf", "l2", "l1"), False
