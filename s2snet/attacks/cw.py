"""Implement Carlini and Wagner's l2 attack: minimise distance plus weighted margin in tanh space (arXiv 1608.04644)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread
from s2snet.attacks.gradients import Objective, Passes
from s2snet.attacks.nearest import NearestFooling, dual_norm
from s2snet.attacks.noise import Noise

# Pixels are 0.5 + 0.5 * _TANH_SCALE * tanh(w), clipped to [0, 1]. With the paper's scale of 1, a pixel at exactly 0 or
# 1 has an infinite w and no gradient, so binary images would never change.
_TANH_SCALE = 1.2


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
    """Return the nearest image found that fools by a margin of `kappa`, or the clean image.

    Minimises |delta|^2 + c max(kappa - margin, 0) (section 6.1) with Adam in tanh space, for several values of c per
    image: c grows tenfold after a failure, and moves halfway to the largest failing c after a success. The arguments
    shared by all attacks are described in `s2snet.attacks`; `leave_early` has no effect.

    Args:
        steps: Maximum number of Adam steps for each c.
        step_size: Initial learning rate in tanh space, decayed to a hundredth by a cosine schedule. None takes a fifth
            of the largest pixel change of the solution for the linearised model (the paper's 0.01 overshoots the
            boundary on many large images), tripled after each failure and divided by three after each success.
        searches: Number of values of c.
        weight: First c. None takes the optimum of the model linearised at the clean image.
        kappa: Required margin in logits, at least 0.
        abort_early: Stop the run of an image if a tenth of its steps improves the minimised sum by less than 0.01 %
            over the previous tenth.
        bisections: Number of halvings of the final line search back to the clean image.

    Cost: at most draws x (searches x (steps + 1) forwards and backwards, bisections + 3 forwards). Not random.
    """
    check(images, labels, targets, norm, cw.norms, steps=steps, searches=searches, draws=draws)
    if kappa < 0:
        raise ValueError(f"kappa={kappa}: must be at least 0")
    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        objective = Objective(model, labels, targets, "margin", draws, passes)
        nearest = NearestFooling(images, objective, norm, kappa)
        all_rows = nearest.rows
        if not len(all_rows):
            return images
        guess, gradient = nearest.linear_distance(all_rows)
        steepness = dual_norm(gradient, norm).clamp(min=1e-15)
        weights, rates = images.new_zeros(len(images)), images.new_zeros(len(images))
        weights[all_rows] = 2 * guess / steepness if weight is None else weight
        largest_change = gradient.flatten(1).abs().amax(dim=1) / steepness * guess  # of a pixel in the linear solution
        rates[all_rows] = (0.2 * largest_change).clamp(1e-6, 0.1) if step_size is None else step_size
        smallest_rates = rates
        low, high = torch.zeros_like(weights), torch.full_like(weights, torch.inf)
        for _ in range(searches):
            rows = all_rows
            start = w = torch.atanh((2 * images[rows] - 1) / _TANH_SCALE)
            mean, square = torch.zeros_like(w), torch.zeros_like(w)
            before = lowest = w.new_full((len(rows),), torch.inf)  # lowest loss of the previous and current tenth
            # whether an iterate of the last full tenth, or of the current one, fools
            succeeded = recent = torch.zeros(len(images), dtype=torch.bool, device=images.device)
            for step in range(steps):
                raw = 0.5 + 0.5 * _TANH_SCALE * torch.tanh(w)
                # return exactly the clean pixel if w has not changed
                x = torch.where(w == start, images[rows], raw.clamp(0, 1))
                _, value, gradient = objective.gradient(x, rows)
                fools = nearest.fools(rows)
                nearest.update(rows, x, fools)
                recent = recent.index_fill(0, rows[fools], True)
                # d/dx of |x - clean|^2 + c max(kappa - margin, 0), then d/dw
                lacking = value.to(x.dtype) < kappa + 2 * nearest.rounding[rows]
                c = weights[rows] * lacking
                delta = x - images[rows]
                loss = delta.flatten(1).square().sum(dim=1) + c * (kappa - value).to(x.dtype)
                slope = (2 * delta - spread(c, x) * gradient) * 0.5 * _TANH_SCALE * (1 - torch.tanh(w) ** 2)
                mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
                decay = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
                rate = decay * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
                w = w - spread(rates[rows], w) * rate * mean / (square.sqrt() + 1e-8)
                lowest = torch.minimum(lowest, loss) if step else lowest
                if step and step % max(1, steps // 10) == 0:
                    # only success in the latest tenth counts: an overlong first step is no evidence about c
                    succeeded, recent = succeeded.index_copy(0, rows, recent[rows]), recent.index_fill(0, rows, False)
                    stay = lowest <= 0.9999 * before if abort_early else torch.ones_like(fools)
                    before, lowest = lowest, torch.full_like(lowest, torch.inf)
                    rows, w, start, mean, square, before, lowest = (
                        item[stay] for item in (rows, w, start, mean, square, before, lowest)
                    )
                    if not len(rows):
                        break
            succeeded = succeeded | recent
            high = torch.where(succeeded, torch.minimum(high, weights), high)
            low = torch.where(succeeded, low, torch.maximum(low, weights))
            between = torch.where(low > 0, (low + high) / 2, high / 10)
            weights = torch.where(high.isfinite(), between, low * 10)
            if step_size is None:  # after a failure the linear guess was too small; after a success, refine
                rates = torch.where(succeeded, torch.maximum(rates / 3, smallest_rates), (3 * rates).clamp(max=0.1))
        return nearest.refine(bisections)


cw.version, cw.norms, cw.minimal = 1, ("l2",), True
