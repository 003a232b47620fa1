"""Implement the iterative least-likely class method (Kurakin, Goodfellow, Bengio, arXiv 1607.02533, section 2.3)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball
from s2snet.attacks.gradients import Best, Objective, Passes
from s2snet.attacks.noise import Noise


def least_likely(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross_entropy",
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return the best iterate of gradient steps toward the class that the model ranks lowest on the clean image.

    As in the paper, an image fools if the prediction differs from the label. The arguments shared by all attacks are
    described in `s2snet.attacks`; `targets` must be None.

    Args:
        steps: Number of gradient steps.
        step_size: Step length in pixel units. Default: 2.5 eps / steps.

    Cost: draws x (steps + 2 forwards, steps backwards), less if images leave early. Not random.
    """
    check(images, labels, targets, norm, least_likely.norms, eps, steps=steps, draws=draws)
    if targets is not None:
        raise ValueError("least_likely chooses its own targets; use bim for given targets")
    step_size = 2.5 * eps / steps if step_size is None else step_size
    noise = Noise() if noise is None else noise
    with untouched(model, noise.seed):
        images = images.detach().clone()
        ball = active_ball = Ball(images, eps, norm)
        best = Best(images)
        objective = Objective(model, labels, None, loss, draws, passes)
        rows = torch.arange(len(images), device=images.device)
        if not len(rows):
            return images
        objective.evaluate(images, rows)
        # the label may itself be ranked lowest: exclude it
        others = objective.logits.scatter(1, labels[:, None], torch.inf)
        objective.loss_targets = others.argmin(dim=1)
        x = images
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


least_likely.version, least_likely.norms, least_likely.minimal = 1, ("linf", "l2"), False
