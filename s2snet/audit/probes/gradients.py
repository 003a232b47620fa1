"""Probes of a defence's gradients: whether they exist, are the derivative, and lead uphill.

`near` are random points near the images, inside the linf ball of radius `eps`.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.attacks.losses import margin
from s2snet.audit.probes.passes import gradient, logits_of, margin_of, plain_cross_entropy, share, value_and_gradient
from s2snet.evaluation.engine import repeatable
from s2snet.models import Defended

STEPS = (1e-6, 1e-8, 1e-10)  # of a central difference in float64: one of them is short enough to miss the kinks
DIRECTIONS = 3
STRETCHES = 8  # of a path along which gradients are added up
TINY = 1e-12  # l2 norm up to which a gradient counts as vanishing
OFF = 1e-2  # relative error of a directional derivative above which a pair counts as wrong


def vanishing(defended: nn.Module, images: Tensor, labels: Tensor, near: Tensor, eps: float) -> dict[str, Any]:
    """Count zero, vanishing and non-finite gradients at the images, at `near` and at two corners of the ball."""
    places = [images, near, (images + eps).clamp(max=1), (images - eps).clamp(min=0)]
    zero = tiny = cross_entropy_zero = broken = reached = total = 0
    broken_logits = 0
    for place, points in enumerate(places):
        broken_logits += int((~logits_of(defended, points).isfinite().all(dim=1)).sum())
        slope = gradient(defended, points, labels)
        if slope is None:
            slope = torch.zeros_like(points)
        else:
            reached += 1
        flat = slope.flatten(1)
        broken += int((~flat.isfinite().all(dim=1)).sum())
        if place < 2:
            total += len(flat)
            zero += int((flat == 0).all(dim=1).sum())
            tiny += int((flat.nan_to_num().norm(dim=1) < TINY).sum())
            plain = gradient(defended, points, labels, plain_cross_entropy)
            plain = torch.zeros_like(points) if plain is None else plain
            cross_entropy_zero += int((plain.flatten(1) == 0).all(dim=1).sum())
    return {
        "reaches_images": reached > 0,
        "zero": zero / total,
        "tiny": tiny / total,
        "cross_entropy_zero": cross_entropy_zero / total,
        "non_finite_gradients": broken,
        "non_finite_logits": broken_logits,
        "points": total,
    }


def differences(
    defended: Defended, near: Tensor, labels: Tensor, eps: float, draw: torch.Generator
) -> dict[str, dict[str, float]]:
    """Compare autograd with central differences in float64, for the whole, the purifier and the classifier.

    Returns for each part the median relative error, `share_off`, the share of (image, direction) pairs with an error
    over 1 %, and `flat`, the share of images at which autograd gives 0 in every direction.
    """
    twin = copy.deepcopy(defended).double()
    return {
        part: _differences(function, points, draw)
        for part, (function, points) in _parts(twin, near.double(), labels, eps, draw).items()
    }


def _parts(
    defended: Defended, points: Tensor, labels: Tensor, eps: float, draw: torch.Generator
) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Return {part: (scalar function of points, the points)} for the whole, the classifier and the purifier.

    Each call of a random module uses the same draws. The classifier is probed near purified images and not at them: an
    image that a purifier has rounded lies on ties of max-pooling.
    """
    with torch.no_grad():
        purified = defended.purifier(points).to(points)
    shift = eps * (2 * torch.rand(purified.shape, generator=draw) - 1).to(purified)
    weight = torch.randn(purified.shape, generator=draw).to(purified)

    def with_equal_draws(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            with repeatable(0, "", 0):
                return function(x)

        return call

    parts = {
        "whole": (with_equal_draws(lambda x: margin(defended(x), labels)), points),
        "classifier": (with_equal_draws(lambda x: margin(defended.classifier(x), labels)), purified + shift),
    }
    if defended.has_purifier:
        projected = with_equal_draws(lambda x: (defended.purifier(x) * weight).flatten(1).sum(dim=1))
        parts["purifier"] = (projected, points)
    return parts


def _differences(function: Callable[[Tensor], Tensor], points: Tensor, draw: torch.Generator) -> dict[str, float]:
    values, slope = value_and_gradient(function, points)
    slope = torch.zeros_like(points) if slope is None else slope.nan_to_num()
    errors = []
    for _ in range(DIRECTIONS):
        direction = torch.randn(points.shape, generator=draw, dtype=points.dtype).to(points.device)
        direction = functional.normalize(direction.flatten(1), dim=1).view_as(points)
        by_autograd = (slope * direction).flatten(1).sum(dim=1)
        of_steps = []
        with torch.no_grad():
            for step in STEPS:
                difference = function(points + step * direction) - function(points - step * direction)
                by_difference = difference / (2 * step)
                size = torch.maximum(by_difference.abs(), by_autograd.abs())
                rounding = 1e-13 * (1 + values.abs()) / step  # a hundred times that of the difference
                error = torch.where(size > rounding, (by_difference - by_autograd).abs() / size, torch.inf)
                of_steps.append(error)
        smallest = torch.stack(of_steps).amin(dim=0)
        errors.append(torch.where(smallest.isinf(), 0.0, smallest))  # no step tells it from 0, and autograd gives 0 too
    errors = torch.cat(errors).nan_to_num(1.0)
    return {
        "median": float(errors.median()),
        "share_off": share(errors > OFF),
        "pairs": len(errors),
        "flat": share((slope.flatten(1) == 0).all(dim=1)),
    }


def jumps(
    defended: Defended, near: Tensor, labels: Tensor, eps: float, draw: torch.Generator
) -> dict[str, dict[str, float]]:
    """Return the share of the change along a short path that its gradients miss: whole, purifier, classifier.

    A continuous function, however many kinks it has, changes by the integral of its gradient; across a jump (a pooling
    index that changes, a value that is rounded, an activation that drops out of the largest k) it changes by more. The
    path has a length of eps / 4 along random signs, in eight stretches, each with the gradient at its middle. For each
    image, the absolute differences over the absolute changes, both summed over the stretches: 0 without jumps, about 1
    if the change consists of jumps. `median` is the median over images.
    """
    path = eps / 4 * torch.randn(near.shape, generator=draw).sign().to(near)
    parts = _parts(defended, near, labels, eps, draw)
    return {part: jumps_of(function, points, path) for part, (function, points) in parts.items()}


def jumps_of(function: Callable[[Tensor], Tensor], start: Tensor, path: Tensor) -> dict[str, float]:
    """Return {"median": share} as in `jumps` for one scalar function along `path`, from `start` on."""
    with torch.no_grad():
        ends = torch.stack([function(start + number / STRETCHES * path) for number in range(STRETCHES + 1)])
    changes = ends.diff(dim=0)
    predicted = []
    for number in range(STRETCHES):
        _, slope = value_and_gradient(function, start + (number + 0.5) / STRETCHES * path)
        slope = torch.zeros_like(path) if slope is None else slope
        predicted.append((slope * path).flatten(1).sum(dim=1) / STRETCHES)
    predicted = torch.stack(predicted)
    changes, predicted = changes.double(), predicted.double()
    total = torch.maximum(changes.abs(), predicted.abs()).sum(dim=0)
    missed = (changes - predicted).abs().sum(dim=0) / total.clamp(min=1e-300)
    return {"median": float(missed.nan_to_num(1.0).median())}


def curvature(defended: nn.Module, near: Tensor, labels: Tensor, eps: float) -> dict[str, float | None]:
    """Return the actual over the predicted rise of the margin along the gradient's sign, at 1/255 and at eps / 4."""
    slope = gradient(defended, near, labels)
    if slope is None:
        return {"one_level": None, "quarter": None}
    predicted = slope.abs().flatten(1).sum(dim=1)
    before = margin_of(defended, near, labels)
    ratios = {}
    for name, step in (("one_level", 1 / 255), ("quarter", eps / 4)):
        rise = margin_of(defended, near + step * slope.sign(), labels) - before
        usable = predicted > 0
        ratios[name] = float((rise[usable] / (step * predicted[usable])).median()) if usable.any() else None
    return ratios


def ascent(
    defended: nn.Module, source: nn.Module, near: Tensor, labels: Tensor, eps: float, seed: int
) -> dict[str, Any]:
    """Return the share of images on which a step along the source's gradient beats four others in the real margin.

    The others are three random sign steps and the opposite step, all of length eps / 4 from a random point.
    """
    slope = gradient(source, near, labels)
    uphill = torch.zeros_like(near) if slope is None else slope.nan_to_num().sign()
    draw = torch.Generator().manual_seed(seed)
    others = [-uphill] + [torch.randn(near.shape, generator=draw).sign().to(near) for _ in range(3)]
    step = eps / 4
    along = margin_of(defended, near + step * uphill, labels)
    best_other = torch.stack([margin_of(defended, near + step * other, labels) for other in others]).amax(dim=0)
    return {"share": share(along > best_other), "images": len(near)}
