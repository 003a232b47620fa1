"""Decoupled direction and norm: a radius that breathes at the boundary (Rony et al.: arXiv 1811.09600)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread, unit
from s2snet.attacks.closest import Closest
from s2snet.attacks.gradients import Passes, Prober
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
    """The nearest fooling image of `steps` iterates, pulled back to the boundary; else the clean one.

    Each step goes `step_size` along the gradient (falling to a hundredth by a cosine), then the perturbation
    gets the length of the radius, which shrinks by `gamma` after a fooling iterate and grows by it after
    another (section 4, algorithm 1). The paper starts both at 1, which is far for one data set and near for
    another; None is the linear model's distance at each clean image, and twice that for the step. The paper's
    loss is the cross-entropy; where logits are small it pulls to all classes at once, past the nearest. Not
    random; `leave_early` changes nothing. Costs draws x (steps forwards and backwards, bisections + 3
    forwards).
    """
    check(images, labels, targets, norm, ddn.norms, steps=steps, draws=draws)
    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        prober = Prober(model, labels, targets, loss, draws, passes)
        closest = Closest(images, prober, norm)
        rows = closest.rows
        if not len(rows):
            return images
        clean = x = images[rows]
        if eps_start is None:
            radius, _ = closest.first_guess(rows)
        else:
            radius = clean.new_full((len(rows),), eps_start)
        longest = 2 * radius if step_size is None else torch.full_like(radius, step_size)
        for step in range(steps):
            _, _, gradient = prober.gradient(x, rows)
            fools = closest.fools(rows)
            closest.see(rows, x, fools)
            size = longest * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
            if step:
                radius = torch.where(fools, (1 - gamma) * radius, (1 + gamma) * radius)
            delta = x - clean + spread(size, x) * unit(gradient)
            x = (clean + spread(radius, x) * unit(delta)).clamp(0, 1)
        prober.look(x, rows)
        closest.see(rows, x, closest.fools(rows))
        return closest.finish(bisections)


ddn.version, ddn.norms, ddn.minimal = 1, ("l2",), True
