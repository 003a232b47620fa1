"""Implement fast minimum-norm: the radius follows the linearised distance (Pintor et al., arXiv 2102.12827)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import distance, spread, unit
from s2snet.attacks.gradients import Objective, Passes
from s2snet.attacks.nearest import NearestFooling, dual_norm
from s2snet.attacks.noise import Noise


def fmn(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    steps: int = 100,
    step_size: float | None = None,
    gamma: float = 0.05,
    loss: str = "margin",
    bisections: int = 8,
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return the nearest fooling iterate, moved back to the boundary, or the clean image.

    Until the first fooling iterate the radius is the linearised distance to the boundary, growing by at least `gamma`
    per step so that images on a plateau keep moving. Afterwards it shrinks by `gamma` after a fooling iterate and grows
    by `gamma` otherwise (section 2.2, algorithm 1). The arguments shared by all attacks are described in
    `s2snet.attacks`; `leave_early` has no effect.

    Args:
        steps: Number of gradient steps.
        step_size: Initial step length in pixel units, decayed to a hundredth by a cosine schedule. None takes twice
            the distance to the boundary of the model linearised at each clean image. (The paper uses 1, which
            suits some data sets and not others.)
        gamma: Initial relative change of the radius per step, decayed likewise.
        bisections: Number of halvings of the final line search back to the clean image.

    Cost: draws x (steps forwards and backwards, bisections + 3 forwards). Not random.
    """
    check(images, labels, targets, norm, fmn.norms, steps=steps, draws=draws)
    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        objective = Objective(model, labels, targets, loss, draws, passes)
        nearest = NearestFooling(images, objective, norm)
        rows = nearest.rows
        if not len(rows):
            return images
        clean = x = images[rows]
        radius, _ = nearest.linear_distance(rows)
        longest = 2 * radius if step_size is None else torch.full_like(radius, step_size)
        for step in range(steps):
            _, _, gradient = objective.gradient(x, rows)
            fools = nearest.fools(rows)
            nearest.update(rows, x, fools)
            decay = (1 + math.cos(math.pi * step / steps)) / 2
            change = gamma * (0.01 + 0.99 * decay)
            best_length = nearest.distance[rows].to(radius.dtype)
            if step:
                # before the first success: the linearised distance to the boundary, larger at every step
                rest = nearest.missing_margin(rows) / dual_norm(gradient, norm).clamp(min=1e-30)
                linear = distance(x, clean, norm).to(radius.dtype) + rest
                linear = torch.maximum(torch.minimum(linear, 2 * radius), (1 + gamma) * radius)
                shrunk, grown = torch.minimum(radius, best_length) * (1 - change), radius * (1 + change)
                oscillating = torch.where(fools, shrunk, grown)
                radius = torch.where(best_length.isfinite(), oscillating, linear)
            size = longest * (0.01 + 0.99 * decay)
            step_to = unit(gradient) if norm == "l2" else gradient.sign()
            delta = x - clean + spread(size, x) * step_to
            if norm == "l2":
                length = delta.flatten(1).norm(dim=1).clamp(min=1e-30)
                delta = delta * spread((radius / length).clamp(max=1), x)
            else:
                limit = spread(radius, x)
                delta = delta.clamp(-limit, limit)
            x = (clean + delta).clamp(0, 1)
        objective.evaluate(x, rows)
        nearest.update(rows, x, nearest.fools(rows))
        return nearest.refine(bisections)


fmn.version, fmn.norms, fmn.minimal = 1, ("l2", "linf"), True
