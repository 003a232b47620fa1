"""Szegedy et al.'s attack: distance minus weighted loss, box-constrained L-BFGS (arXiv 1312.6199, 4.1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.closest import Closest, dual_length
from s2snet.attacks.gradients import Passes, Prober
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
    """The nearest fooling image met on the way; the clean one where none fools.

    Minimises |delta|^2 - c loss over [0, 1] with SciPy's L-BFGS-B, at most `steps` iterations for each of
    `searches` values of c per image: ten times more after a failure, halfway to the largest failure after a
    success. The first c is `weight`; None is the one that a linear model would want, from the clean image's
    margin. The paper's loss is the cross-entropy to a target (loss="cross_entropy" and targets); the margin
    needs no other c where a model is confident. One image at a time. Not random; `leave_early` changes
    nothing. Costs some draws x (searches x (steps + 3) forwards and backwards, bisections + 3 forwards). Needs
    SciPy. Of a module that answers at random the search minimises the mean of `draws` answers, anew each time:
    with few of them its line search ends early, and the nearest image met until then counts.
    """
    check(images, labels, targets, norm, lbfgs.norms, steps=steps, searches=searches, draws=draws)
    from scipy.optimize import minimize  # here, so that the other attacks need no SciPy

    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        prober = Prober(model, labels, targets, loss, draws, passes)
        closest = Closest(images, prober, norm)
        if not len(closest.rows):
            return images
        guess, gradient = closest.first_guess(closest.rows)
        first = (2 * guess / dual_length(gradient, norm).clamp(min=1e-15)).tolist()
        for row, c in zip(closest.rows.split(1), first, strict=True):
            c = c if weight is None else weight
            clean = images[row]
            start = clean.double().flatten().cpu().numpy()
            low, high = 0.0, float("inf")
            for _ in range(searches):

                def objective(pixels, c=c, row=row, clean=clean, start=start):
                    x = torch.from_numpy(pixels).to(clean).view_as(clean).clamp(0, 1)
                    _, value, gradient = prober.gradient(x, row)
                    closest.see(row, x, closest.fools(row))
                    delta = pixels - start
                    slope = 2 * delta - c * gradient.double().flatten().cpu().numpy()
                    return float(delta @ delta) - c * float(value), slope

                # the objective is of the order of the squared distance: its own scale, not 1, says when to
                # stop
                found = minimize(
                    objective,
                    start,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=[(0, 1)] * len(start),
                    options={"maxiter": steps, "maxfun": 2 * steps + 2, "ftol": 1e-12, "gtol": 0},
                )
                x = torch.from_numpy(found.x).to(clean).view_as(clean).clamp(0, 1)
                prober.look(x, row)
                won = bool(closest.fools(row))
                closest.see(row, x, closest.fools(row))
                low, high = (low, min(high, c)) if won else (max(low, c), high)
                c = low * 10 if high == float("inf") else (low + high) / 2 if low else high / 10
        return closest.finish(bisections)


lbfgs.version, lbfgs.norms, lbfgs.minimal = 1, ("l2",), True
