"""Auto-PGD: steps whose length halves when they stop paying (Croce and Hein: arXiv 2003.01690, section 3)."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball, spread
from s2snet.attacks.gradients import Best, Passes, Prober
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
    """The best iterate of `restarts` runs of `steps` steps, whose size starts at 2 eps and adapts per image.

    With `target_classes` = n above 0 each restart makes n runs, each pulling to another of the n classes that
    the module ranks highest besides the label (loss="dlr", target_classes=9 is the paper's targeted APGD);
    any wrong class still fools. With `targets` that one class alone counts, and `target_classes` must be 0.
    Starts are drawn from `noise`; without `random_start` the one start is the image. `momentum` is the share of
    the last move in the next (the paper's 1 - alpha), `rho` the share of rising steps below which the size
    halves. Costs restarts x runs x draws x (steps + 1 forwards, steps backwards), plus one forward with
    `target_classes`, less where images leave early.
    """
    check(images, labels, targets, norm, apgd.norms, eps, steps=steps, restarts=restarts, draws=draws)
    if targets is not None and target_classes:
        raise ValueError(f"target_classes={target_classes} together with targets: the targets say which class")
    if target_classes < 0:
        raise ValueError(f"target_classes={target_classes}: 0 is none, above are so many")
    noise = Noise() if noise is None else noise
    checkpoints = _checkpoints(steps)
    with untouched(model, noise.seed):
        images = images.detach().clone()
        best = Best(images)
        ball = Ball(images, eps, norm)
        prober = Prober(model, labels, targets, loss, draws, passes)
        everyone = torch.arange(len(images), device=images.device)
        aims = [targets]
        if target_classes and len(images):
            prober.look(images, everyone)
            ranked = prober.logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)
            aims = list(ranked[:, : min(target_classes, ranked.shape[1] - 1)].unbind(dim=1))
        for restart, aim in ((restart, aim) for restart in range(restarts) for aim in aims):
            prober.aims = aim
            rows = everyone[~best.fools] if leave_early else everyone
            near = ball.rows(rows)
            x = before = near.start(noise, rows, restart) if random_start else near.images
            size = x.new_full((len(rows),), 2 * eps)
            top_x, top_gradient = x, torch.zeros_like(x)
            top = x.new_full((len(rows),), -torch.inf)  # the loss's highest value in this run, fooling or not
            last, rises, top_then = top, torch.zeros_like(top), top
            # True, so that the first checkpoint asks for rising steps only
            halved = torch.ones_like(top, dtype=torch.bool)
            for step in range(steps):
                if not len(rows):
                    break
                fools, value, gradient = prober.gradient(x, rows)
                value = value.to(x.dtype).nan_to_num(torch.inf, torch.inf, -torch.inf)
                best.see(rows, x, fools, _rank(prober, rows, value))
                if leave_early and fools.any():
                    stay = ~fools
                    rows, x, before, size, value, gradient = (
                        item[stay] for item in (rows, x, before, size, value, gradient)
                    )
                    top_x, top_gradient, top, last, rises, top_then, halved = (
                        item[stay] for item in (top_x, top_gradient, top, last, rises, top_then, halved)
                    )
                    near = ball.rows(rows)
                better = value > top
                wide = spread(better, x)
                top_x, top_gradient = torch.where(wide, x, top_x), torch.where(wide, gradient, top_gradient)
                top = torch.where(better, value, top)
                rises = rises + (value > last) if step else rises
                last = value
                if step in checkpoints:
                    # condition 1: too few steps rose; condition 2: neither size nor best loss has moved
                    slow = rises < rho * (step - checkpoints[step])
                    halve = slow | (~halved & (top <= top_then))
                    size = torch.where(halve, size / 2, size)
                    wide = spread(halve, x)
                    x, gradient = torch.where(wide, top_x, x), torch.where(wide, top_gradient, gradient)
                    last = torch.where(halve, top, last)
                    halved, top_then, rises = halve, top, torch.zeros_like(rises)
                # a gradient step, of which `momentum` gives way to the last move
                stepped = near.project(x + spread(size, x) * near.steepest(gradient, x))
                share = 1 - momentum if step else 1.0
                moved = near.project(x + share * (stepped - x) + (1 - share) * (x - before))
                x, before = moved, x
            if len(rows):
                fools, value = prober.look(x, rows)
                best.see(rows, x, fools, _rank(prober, rows, value))
        return best.images


def _checkpoints(steps: int) -> dict[int, int]:
    """{step: the checkpoint before it}: 0, 0.22, then intervals 0.03 shorter each, at least 0.06."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    places = sorted({math.ceil(share * steps - 1e-9) for share in shares})
    return {here: before for before, here in pairwise(places) if here < steps}


def _rank(prober: Prober, rows: Tensor, value: Tensor) -> Tensor:
    """What compares iterates of runs to different classes: the loss without a class to pull to."""
    if prober.aims is prober.targets:
        return value
    return prober.loss(prober.logits, *prober.classes(rows))


apgd.version, apgd.norms, apgd.minimal = 2, ("linf", "l2"), False
