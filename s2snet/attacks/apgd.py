"""Implement Auto-PGD, which halves its step size when progress stalls (Croce and Hein, arXiv 2003.01690, section 3)."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball, spread
from s2snet.attacks.gradients import Best, Objective, Passes
from s2snet.attacks.noise import Noise


def apgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
    target_classes: int = 0,
    momentum: float = 0.25,
    rho: float = 0.75,
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return the best iterate of several runs whose step size starts at 2 eps and adapts per image.

    The arguments shared by all attacks are described in `s2snet.attacks`.

    Args:
        steps: Number of gradient steps per run.
        restarts: Number of restarts.
        random_start: Start at a random point of the ball, drawn from `noise`. If False, start at the image.
        target_classes: If n > 0, each restart makes n runs, one toward each of the n classes ranked highest by the
            model, excluding the label. Any wrong class still counts as fooled. loss="dlr" with target_classes=9 is
            the paper's targeted APGD. Must be 0 if `targets` is given.
        momentum: Weight of the previous move in the next one (1 - alpha in the paper).
        rho: Fraction of loss-increasing steps below which the step size is halved.

    Cost: restarts x runs x draws x (steps + 1 forwards, steps backwards), plus one forward with `target_classes`;
    less if images leave early.
    """
    check(images, labels, targets, norm, apgd.norms, eps, steps=steps, restarts=restarts, draws=draws)
    if targets is not None and target_classes:
        raise ValueError(f"target_classes={target_classes}: must be 0 if targets are given")
    if target_classes < 0:
        raise ValueError(f"target_classes={target_classes}: must be at least 0 (0 disables targeted runs)")
    noise = Noise() if noise is None else noise
    checkpoints = _checkpoints(steps)
    with untouched(model, noise.seed):
        images = images.detach().clone()
        best = Best(images)
        ball = Ball(images, eps, norm)
        objective = Objective(model, labels, targets, loss, draws, passes)
        all_rows = torch.arange(len(images), device=images.device)
        run_targets = [targets]
        if target_classes and len(images):
            objective.evaluate(images, all_rows)
            ranked = objective.logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)
            run_targets = list(ranked[:, : min(target_classes, ranked.shape[1] - 1)].unbind(dim=1))
        for restart, loss_targets in ((restart, classes) for restart in range(restarts) for classes in run_targets):
            objective.loss_targets = loss_targets
            rows = all_rows[~best.fools] if leave_early else all_rows
            active_ball = ball.rows(rows)
            x = before = active_ball.start(noise, rows, restart) if random_start else active_ball.images
            size = x.new_full((len(rows),), 2 * eps)
            top_x, top_gradient = x, torch.zeros_like(x)
            top = x.new_full((len(rows),), -torch.inf)  # highest loss of this run, whether or not it fools
            last, rises, top_at_checkpoint = top, torch.zeros_like(top), top
            # True, so that only condition 1 applies at the first checkpoint
            halved = torch.ones_like(top, dtype=torch.bool)
            for step in range(steps):
                if not len(rows):
                    break
                fools, value, gradient = objective.gradient(x, rows)
                value = value.to(x.dtype).nan_to_num(torch.inf, torch.inf, -torch.inf)
                best.update(rows, x, fools, _rank(objective, rows, value))
                if leave_early and fools.any():
                    stay = ~fools
                    rows, x, before, size, value, gradient = (
                        item[stay] for item in (rows, x, before, size, value, gradient)
                    )
                    top_x, top_gradient, top, last, rises, top_at_checkpoint, halved = (
                        item[stay] for item in (top_x, top_gradient, top, last, rises, top_at_checkpoint, halved)
                    )
                    active_ball = ball.rows(rows)
                better = value > top
                wide = spread(better, x)
                top_x, top_gradient = torch.where(wide, x, top_x), torch.where(wide, gradient, top_gradient)
                top = torch.where(better, value, top)
                rises = rises + (value > last) if step else rises
                last = value
                if step in checkpoints:
                    # condition 1: too few steps increased the loss; condition 2: step size and best loss are unchanged
                    slow = rises < rho * (step - checkpoints[step])
                    halve = slow | (~halved & (top <= top_at_checkpoint))
                    size = torch.where(halve, size / 2, size)
                    wide = spread(halve, x)
                    x, gradient = torch.where(wide, top_x, x), torch.where(wide, top_gradient, gradient)
                    last = torch.where(halve, top, last)
                    halved, top_at_checkpoint, rises = halve, top, torch.zeros_like(rises)
                # mix the gradient step with the previous move
                stepped = active_ball.project(x + spread(size, x) * active_ball.steepest(gradient, x))
                share = 1 - momentum if step else 1.0
                moved = active_ball.project(x + share * (stepped - x) + (1 - share) * (x - before))
                x, before = moved, x
            if len(rows):
                fools, value = objective.evaluate(x, rows)
                best.update(rows, x, fools, _rank(objective, rows, value))
        return best.images


def _checkpoints(steps: int) -> dict[int, int]:
    """Return {checkpoint step: previous checkpoint step}.

    As fractions of `steps`: 0, 0.22, then each interval 0.03 shorter than the previous one, but at least 0.06.
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    places = sorted({math.ceil(share * steps - 1e-9) for share in shares})
    return {here: before for before, here in pairwise(places) if here < steps}


def _rank(objective: Objective, rows: Tensor, value: Tensor) -> Tensor:
    """Return the loss without the run's target classes, which makes runs toward different classes comparable."""
    if objective.loss_targets is objective.targets:
        return value
    return objective.loss(objective.logits, *objective.classes(rows))


apgd.version, apgd.norms, apgd.minimal = 2, ("linf", "l2"), False
