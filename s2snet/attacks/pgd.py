"""Projected gradient descent: steepest steps from random starts (Madry et al.: arXiv 1706.06083)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball
from s2snet.attacks.gradients import Best, Passes, Prober
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
    """The best of all iterates of `restarts` runs of `steps` steps.

    `step_size` is in pixel units and defaults to 2.5 eps / steps, so that the rim can be reached and left
    again. Starts are uniform in the ball (l2: in direction and in length), drawn from `noise`; without
    `random_start` the one start is the image itself. `sparsity` is for l1: the share of coordinates a step
    moves (a hundredth as in Tramer and Boneh, arXiv 1904.13000: on 60 digits a twentieth leaves 30 where it
    leaves 19). Costs restarts x draws x (steps + 1 forwards, steps backwards), less where images leave early.
    """
    check(images, labels, targets, norm, pgd.norms, eps, steps=steps, restarts=restarts, draws=draws)
    if not 0 < sparsity <= 1:
        raise ValueError(f"sparsity={sparsity}: a share above 0, at most 1")
    step_size = 2.5 * eps / steps if step_size is None else step_size
    noise = Noise() if noise is None else noise
    with untouched(model, noise.seed):
        images = images.detach().clone()
        ball = Ball(images, eps, norm, sparsity)
        best = Best(images)
        prober = Prober(model, labels, targets, loss, draws, passes)
        for restart in range(restarts):
            rows = torch.nonzero(~best.fools if leave_early else torch.ones_like(best.fools)).squeeze(1)
            near = ball.rows(rows)
            # short steps from noise on the rim of an l2 ball leave more images than those from within
            x = near.start(noise, rows, restart, inner=True) if random_start else near.images
            for _ in range(steps):
                if not len(rows):
                    break
                fools, value, gradient = prober.gradient(x, rows)
                best.see(rows, x, fools, value)
                if leave_early and fools.any():
                    rows, x, gradient = rows[~fools], x[~fools], gradient[~fools]
                    near = ball.rows(rows)
                x = near.project(x + step_size * near.steepest(gradient, x))
            if len(rows):
                best.see(rows, x, *prober.look(x, rows))
        return best.images


pgd.version, pgd.norms, pgd.minimal = 3, ("linf", "l2", "l1"), False
