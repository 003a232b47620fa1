"""Implement Szegedy et al.'s attack: minimise distance minus weighted loss with L-BFGS-B (arXiv 1312.6199, 4.1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.gradients import Objective, Passes
from s2snet.attacks.nearest import NearestFooling, dual_norm
from s2snet.attacks.noise import Noise


def lbfgs(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    steps: int = 20,
    searches: int = 8,
    weight: float | None = None,
    loss: str = "margin",
    bisections: int = 8,
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return the nearest fooling image evaluated during the search, or the clean image.

    Minimises |delta|^2 - c loss over [0, 1] with SciPy's L-BFGS-B, one image at a time, for several values of c per
    image: c grows tenfold after a failure, and moves halfway to the largest failing c after a success. The arguments
    shared by all attacks are described in `s2snet.attacks`; `leave_early` has no effect.

    Args:
        steps: Maximum number of L-BFGS-B iterations for each c.
        searches: Number of values of c.
        weight: First c. None takes the optimum of the model linearised at the clean image.
        loss: The paper uses the cross-entropy to a target (loss="cross_entropy" with targets). The margin needs no
            larger c if the model is confident.
        bisections: Number of halvings of the final line search back to the clean image.
        draws: For a model with random outputs, each evaluation averages fresh draws. With few draws the line search
            may end early; the nearest image found until then counts.

    Cost: about draws x (searches x (steps + 3) forwards and backwards, bisections + 3 forwards). Not random. Needs
    SciPy.
    """
    check(images, labels, targets, norm, lbfgs.norms, steps=steps, searches=searches, draws=draws)
    from scipy.optimize import minimize  # imported here, so that the other attacks work without SciPy

    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        objective = Objective(model, labels, targets, loss, draws, passes)
        nearest = NearestFooling(images, objective, norm)
        if not len(nearest.rows):
            return images
        guess, gradient = nearest.linear_distance(nearest.rows)
        first = (2 * guess / dual_norm(gradient, norm).clamp(min=1e-15)).tolist()
        for row, c in zip(nearest.rows.split(1), first, strict=True):
            c = c if weight is None else weight
            clean = images[row]
            start = clean.double().flatten().cpu().numpy()
            low, high = 0.0, float("inf")
            for _ in range(searches):

                def penalised_distance(pixels, c=c, row=row, clean=clean, start=start):
                    x = torch.from_numpy(pixels).to(clean).view_as(clean).clamp(0, 1)
                    _, value, gradient = objective.gradient(x, row)
                    nearest.update(row, x, nearest.fools(row))
                    delta = pixels - start
                    slope = 2 * delta - c * gradient.double().flatten().cpu().numpy()
                    return float(delta @ delta) - c * float(value), slope

                # the objective scales with the squared distance, so stop on its relative change (ftol) alone
                solution = minimize(
                    penalised_distance,
                    start,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=[(0, 1)] * len(start),
                    options={"maxiter": steps, "maxfun": 2 * steps + 2, "ftol": 1e-12, "gtol": 0},
                )
                x = torch.from_numpy(solution.x).to(clean).view_as(clean).clamp(0, 1)
                objective.evaluate(x, row)
                succeeded = bool(nearest.fools(row))
                nearest.update(row, x, nearest.fools(row))
                low, high = (low, min(high, c)) if succeeded else (max(low, c), high)
                c = low * 10 if high == float("inf") else (low + high) / 2 if low else high / 10
        return nearest.refine(bisections)


lbfgs.version, lbfgs.norms, lbfgs.minimal = 1, ("l2",), True
