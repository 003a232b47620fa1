"""Count what an evaluation costs before it starts: passes of each cell, time per pass, shares of the ranks."""

import inspect
import json
import math
import time
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from s2snet.attacks import Noise, Passes
from s2snet.evaluation.cells import Cell, attack_of
from s2snet.evaluation.targets import TARGETS

FEW = 50  # steps that are counted by running them; more are extrapolated


@dataclass(frozen=True)
class Cost:
    """Passes through the source per image without leaving early: an upper bound; for cw and lbfgs an estimate."""

    forwards: float
    backwards: float


class Costs:
    """Counts the cost of each cell by running its attack on two images against a model that nothing fools."""

    def __init__(self, shape: tuple[int, ...], classes: int):
        self._shape, self._classes, self._known = shape, classes, {}

    def of(self, cell: Cell) -> Cost:
        if cell.source is None or cell.universal:  # attacks no test image
            return Cost(0, 0)
        facts = cell.preimage
        # The radius makes no difference here: at none is the model fooled.
        key = json.dumps([facts["attack"], facts["options"], facts["norm"], facts["budget"] is None], sort_keys=True)
        if key not in self._known:
            self._known[key] = self._count(cell)
        cost, draws = self._known[key], getattr(cell.source, "draws_per_backward", None)
        return Cost(*counted(cost.forwards, cost.backwards, draws))

    def _count(self, cell: Cell) -> Cost:
        _, attack, options = attack_of(cell)
        aim = options.pop("targets", None)
        images = torch.full((2, *self._shape), 0.5)
        labels = torch.zeros(2, dtype=torch.int64)
        given = {"norm": cell.norm, "noise": Noise(0)}
        if cell.preimage["budget"] is not None:
            given["eps"] = cell.budget
        if aim is not None:
            given["targets"] = TARGETS[aim](_Firm(self._classes), images, labels, self._classes, Noise(0))

        def passes(module: nn.Module, **steps: int) -> Cost:
            taken = Passes(2)
            attack(module, images, labels, passes=taken, **given, **{**options, **steps})
            return Cost(taken.forwards.float().mean().item(), taken.backwards.float().mean().item())

        def most(**steps: int) -> Cost:
            cost = passes(_Firm(self._classes), **steps)
            if attack.minimal:  # an image that fools in the last pass is pulled back to the boundary, which also costs
                then = int(given.get("targets", labels + 1)[0])
                late = passes(_Firm(self._classes, round(cost.forwards) - 1, then), **steps)
                cost = Cost(max(cost.forwards, late.forwards), max(cost.backwards, late.backwards))
            return cost

        parameter = inspect.signature(attack).parameters.get("steps")
        steps = options.get("steps", 0 if parameter is None else parameter.default)
        try:
            if steps <= 2 * FEW:
                return most()
            few, twice = most(steps=FEW), most(steps=2 * FEW)  # the rest is extrapolated
            share = (steps - FEW) / FEW
            forwards, backwards = (a + share * (b - a) for a, b in zip(astuple(few), astuple(twice), strict=True))
            return Cost(forwards, backwards)
        except Exception:  # the failure is reported with the cells of the attack
            return Cost(0, 0)


def counted(forwards, backwards, draws_per_backward: int | None) -> tuple:
    """Return (forwards, backwards) through the network, of which each backward of the source takes several."""
    if draws_per_backward is None:
        return forwards, backwards
    more = backwards * draws_per_backward
    return forwards + more, more


class _Firm(nn.Module):
    """Predicts class 0 for all images, with a gradient, so that attacks take all their steps.

    From pass number `until` on it predicts `then`.
    """

    def __init__(self, classes: int, until: float = math.inf, then: int = 1):
        super().__init__()
        self.classes, self.until, self.then, self.passes = classes, until, then, 0

    def forward(self, images: Tensor) -> Tensor:
        slope = torch.arange(self.classes, dtype=images.dtype) * 1e-3
        logits = torch.zeros(self.classes, dtype=images.dtype)
        logits[0 if self.passes < self.until else self.then] = 10.0
        self.passes += 1
        return images.flatten(1).mean(dim=1, keepdim=True) * slope + logits


def seconds_per_image(source: nn.Module, images: Tensor) -> tuple[float, float]:
    """Measure the seconds per image of (a forward, a forward with its backward) after a warm-up. Six passes."""
    times = []
    for backwards in (False, True):
        best = float("inf")
        for _ in range(2):
            started = time.perf_counter()
            with torch.set_grad_enabled(backwards):
                x = images.clone().requires_grad_(backwards)
                logits = source(x)
                if backwards and logits.requires_grad:
                    torch.autograd.grad(logits.sum(), x)
            if images.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        times.append(best / len(images))
    return times[0], times[1]


def shares(cells: list[Cell], sizes: list[int], world: int, costs: Costs) -> dict[tuple[int, int], int]:
    """Return {(chunk, place of the cell): rank}: the most expensive pieces first, each to the least busy rank.

    Equal on every rank, since it depends on the plan alone. `sizes` is the number of images of each chunk.
    """
    if world == 1:
        return {(chunk, place): 0 for chunk in range(len(sizes)) for place in range(len(cells))}
    price = [_price(cell, costs) for cell in cells]
    pieces = sorted(
        ((price[place] * sizes[chunk], chunk, place) for chunk in range(len(sizes)) for place in range(len(cells))),
        key=lambda piece: (-piece[0], *piece[1:]),
    )
    load, owner = [0.0] * world, {}
    for cost, chunk, place in pieces:
        rank = min(range(world), key=lambda r: (load[r], r))
        load[rank] += cost
        owner[chunk, place] = rank
    return owner


def _price(cell: Cell, costs: Costs) -> float:
    """Return a rough cost of one image: crafting and judging, with a purifier counted as three classifiers."""
    cost = costs.of(cell)
    source = getattr(cell.source, "defended", cell.source)
    weight = 4 if getattr(source, "has_purifier", False) else 1
    return weight * (cost.forwards + 2 * cost.backwards) + 4 * len(cell.judges)
