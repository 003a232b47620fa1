"""Carlini and Wagner's l2 attack: distance plus weighted margin, Adam in tanh space (arXiv 1608.04644)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread
from s2snet.attacks.closest import Closest, dual_length
from s2snet.attacks.gradients import Passes, Prober
from s2snet.attacks.noise import Noise

# Pixels are 0.5 + 0.5 _WIDE tanh(w), cut to [0, 1]. With the paper's tanh alone a pixel at exactly 0 or 1 has
# an infinite w and no gradient: on binary images nothing would ever move.
_WIDE = 1.2


def cw(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    steps: int = 200,
    step_size: float | None = None,
    searches: int = 6,
    weight: float | None = None,
    kappa: float = 0.0,
    abort_early: bool = True,
    bisections: int = 8,
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """The nearest image that fools by a margin of `kappa`; the clean one where none does.

    Minimises |delta|^2 + c max(kappa - margin, 0) (section 6.1) by at most `steps` Adam steps in tanh space,
    for `searches` values of c per image: ten times more after a failure, halfway to the largest failure after
    a success. The first c is `weight`; None is the one that a linear model would want, from the clean image's
    gradient. `step_size` falls to a hundredth by a cosine; None is a fifth of the largest pixel of that
    linear solution (the paper's 0.01 is far beyond the boundary of many a large image), three times more
    after each failure and a third after each success. With `abort_early` an image's run ends where a tenth of
    its steps was no better by 1e-4 than the tenth before. Not random; `leave_early` changes nothing. Costs at
    most draws x (searches x (steps + 1) forwards and backwards, bisections + 3 forwards).
    """
    check(images, labels, targets, norm, cw.norms, steps=steps, searches=searches, draws=draws)
    if kappa < 0:
        raise ValueError(f"kappa={kappa}: a margin of at least 0")
    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        prober = Prober(model, labels, targets, "margin", draws, passes)
        closest = Closest(images, prober, norm, kappa)
        everyone = closest.rows
        if not len(everyone):
            return images
        guess, gradient = closest.first_guess(everyone)
        steepness = dual_length(gradient, norm).clamp(min=1e-15)
        weights, rates = images.new_zeros(len(images)), images.new_zeros(len(images))
        weights[everyone] = 2 * guess / steepness if weight is None else weight
        largest = gradient.flatten(1).abs().amax(dim=1) / steepness * guess  # pixel of the linear model's solution
        rates[everyone] = (0.2 * largest).clamp(1e-6, 0.1) if step_size is None else step_size
        finest = rates
        low, high = torch.zeros_like(weights), torch.full_like(weights, torch.inf)
        for _ in range(searches):
            rows = everyone
            start = w = torch.atanh((2 * images[rows] - 1) / _WIDE)
            mean, square = torch.zeros_like(w), torch.zeros_like(w)
            before = lowest = w.new_full((len(rows),), torch.inf)  # of the tenths of the run before and under way
            won = late = torch.zeros(len(images), dtype=torch.bool, device=images.device)
            for step in range(steps):
                raw = 0.5 + 0.5 * _WIDE * torch.tanh(w)
                # exactly the clean pixel where w has not moved
                x = torch.where(w == start, images[rows], raw.clamp(0, 1))
                _, value, gradient = prober.gradient(x, rows)
                fools = closest.fools(rows)
                closest.see(rows, x, fools)
                late = late.index_fill(0, rows[fools], True)
                # d/dx of |x - clean|^2 + c max(kappa - margin, 0), then d/dw
                lacking = value.to(x.dtype) < kappa + 2 * closest.noise[rows]
                c = weights[rows] * lacking
                delta = x - images[rows]
                loss = delta.flatten(1).square().sum(dim=1) + c * (kappa - value).to(x.dtype)
                slope = (2 * delta - spread(c, x) * gradient) * 0.5 * _WIDE * (1 - torch.tanh(w) ** 2)
                mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
                fall = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
                rate = fall * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
                w = w - spread(rates[rows], w) * rate * mean / (square.sqrt() + 1e-8)
                lowest = torch.minimum(lowest, loss) if step else lowest
                if step and step % max(1, steps // 10) == 0:
                    # success counts while it lasts: a first step too long says nothing about c
                    won, late = won.index_copy(0, rows, late[rows]), late.index_fill(0, rows, False)
                    stay = lowest <= 0.9999 * before if abort_early else torch.ones_like(fools)
                    before, lowest = lowest, torch.full_like(lowest, torch.inf)
                    rows, w, start, mean, square, before, lowest = (
                        item[stay] for item in (rows, w, start, mean, square, before, lowest)
                    )
                    if not len(rows):
                        break
            won = won | late
            high = torch.where(won, torch.minimum(high, weights), high)
            low = torch.where(won, low, torch.maximum(low, weights))
            between = torch.where(low > 0, (low + high) / 2, high / 10)
            weights = torch.where(high.isfinite(), between, low * 10)
            if step_size is None:  # the guess was too near, for the steps as for c; a success can be refined
                rates = torch.where(won, torch.maximum(rates / 3, finest), (3 * rates).clamp(max=0.1))
        return closest.finish(bisections)


cw.version, cw.norms, cw.minimal = 1, ("l2",), True
