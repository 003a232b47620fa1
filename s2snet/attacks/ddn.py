"""Implement decoupled direction and norm: the radius oscillates around the boundary (Rony et al., arXiv 1811.09600)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread, unit
from s2snet.attacks.gradients import Objective, Passes
from s2snet.attacks.nearest import NearestFooling
from s2snet.attacks.noise import Noise


def ddn(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    steps: int = 100,
    step_size: float | None = None,
    eps_start: float | None = None,
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

    Each step moves along the gradient, then rescales the perturbation to the radius, which shrinks by `gamma` after a
    fooling iterate and grows by `gamma` otherwise (section 4, algorithm 1). The arguments shared by all attacks are
    described in `s2snet.attacks`; `leave_early` has no effect.

    Args:
        steps: Number of gradient steps.
        step_size: Initial step length in pixel units, decayed to a hundredth by a cosine schedule. None takes twice
            the distance to the boundary of the model linearised at each clean image. (The paper uses 1, which
            suits some data sets and not others.)
        eps_start: Initial radius. None takes the linearised distance (the paper uses 1).
        gamma: Relative change of the radius per step.
        loss: The paper uses the cross-entropy, which for small logits pulls toward all classes at once instead of the
            nearest one.
        bisections: Number of halvings of the final line search back to the clean image.

    Cost: draws x (steps forwards and backwards, bisections + 3 forwards). Not random.
    """
    check(images, labels, targets, norm, ddn.norms, steps=steps, draws=draws)
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
        if eps_start is None:
            radius, _ = nearest.linear_distance(rows)
        else:
            radius = clean.new_full((len(rows),), eps_start)
        longest = 2 * radius if step_size is None else torch.full_like(radius, step_size)
        for step in range(steps):
            _, _, gradient = objective.gradient(x, rows)
            fools = nearest.fools(rows)
            nearest.update(rows, x, fools)
            size = longest * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
            if step:
                radius = torch.where(fools, (1 - gamma) * radius, (1 + gamma) * radius)
            delta = x - clean + spread(size, x) * unit(gradient)
            x = (clean + spread(radius, x) * unit(delta)).clamp(0, 1)
        objective.evaluate(x, rows)
        nearest.update(rows, x, nearest.fools(rows))
        return nearest.refine(bisections)


ddn.version, ddn.norms, ddn.minimal = 1, ("l2",), True
