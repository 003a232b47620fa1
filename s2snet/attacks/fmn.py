"""Fast minimum-norm: a radius that follows the linearised distance (Pintor et al.: arXiv 2102.12827)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import distance, spread, unit
from s2snet.attacks.closest import Closest, dual_length
from s2snet.attacks.gradients import Passes, Prober
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
    """The nearest fooling image of `steps` iterates, pulled back to the boundary; else the clean one.

    The radius is the linearised distance to the boundary as long as nothing fooled (and grows by `gamma` at
    least, so that no image is given up on a plateau); then it shrinks by `gamma` after a fooling iterate and
    grows by it after another, with `gamma` falling to a hundredth by a cosine, like `step_size` (section 2.2,
    algorithm 1). `step_size` None is twice the linear model's distance at each clean image, in place of the
    paper's 1, which is far for one data set and near for another. Not random; `leave_early` changes nothing.
    Costs draws x (steps forwards and backwards, bisections + 3 forwards).
    """
    check(images, labels, targets, norm, fmn.norms, steps=steps, draws=draws)
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
        radius, _ = closest.first_guess(rows)
        longest = 2 * radius if step_size is None else torch.full_like(radius, step_size)
        for step in range(steps):
            _, _, gradient = prober.gradient(x, rows)
            fools = closest.fools(rows)
            closest.see(rows, x, fools)
            fall = (1 + math.cos(math.pi * step / steps)) / 2
            breath = gamma * (0.01 + 0.99 * fall)
            nearest = closest.distance[rows].to(radius.dtype)
            if step:
                # before the first success: as far as the linearised boundary, and always farther than before
                rest = closest.lack(rows) / dual_length(gradient, norm).clamp(min=1e-30)
                linear = distance(x, clean, norm).to(radius.dtype) + rest
                linear = torch.maximum(torch.minimum(linear, 2 * radius), (1 + gamma) * radius)
                breathed = torch.where(fools, torch.minimum(radius, nearest) * (1 - breath), radius * (1 + breath))
                radius = torch.where(nearest.isfinite(), breathed, linear)
            size = longest * (0.01 + 0.99 * fall)
            step_to = unit(gradient) if norm == "l2" else gradient.sign()
            delta = x - clean + spread(size, x) * step_to
            if norm == "l2":
                length = delta.flatten(1).norm(dim=1).clamp(min=1e-30)
                delta = delta * spread((radius / length).clamp(max=1), x)
            else:
                limit = spread(radius, x)
                delta = delta.clamp(-limit, limit)
            x = (clean + delta).clamp(0, 1)
        prober.look(x, rows)
        closest.see(rows, x, closest.fools(rows))
        return closest.finish(bisections)


fmn.version, fmn.norms, fmn.minimal = 1, ("l2", "linf"), True
