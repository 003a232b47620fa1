"""Define cells and their keys: whatever changes the numbers changes the key, and nothing else does."""

import hashlib
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from s2snet.attacks import ATTACKS, LOSSES, UNIVERSAL, VARIANTS
from s2snet.config.choices import choose, nearest
from s2snet.config.evaluation import Attack
from s2snet.evaluation import targets
from s2snet.evaluation.foreign import ForeignImages
from s2snet.threats.knowledge import ANSWERS, GRADIENTS, TRAINING_IMAGES

# Arguments that the engine passes to an attack; all others are options of the user.
_GIVEN = ("model", "batches", "images", "labels", "eps", "norm", "noise", "targets", "leave_early", "passes")


@dataclass
class Cell:
    """One crafting job: a source differentiated by a route, an attack with its options, a norm and a budget."""

    preimage: dict[str, Any]  # everything the adversarial images depend on, as JSON
    attack: str  # its label in the configuration and in tables
    views: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)  # (threat, source name, judges)
    source: nn.Module | None = None  # None for clean and foreign images
    fast: nn.Module | None = None  # the copy of the source that is attacked, or the source itself
    surrogate: nn.Module | None = None  # part of both, to be fitted before the cell can run
    shift: torch.Tensor | None = None  # the perturbation of all images, [C, H, W], to be fitted before a universal cell
    foreign: ForeignImages | None = None
    status: str = "done"
    reason: str | None = None

    @property
    def key(self) -> str:
        return key_of(self.preimage)

    @property
    def judges(self) -> list[str]:
        return list(dict.fromkeys(name for _, _, judges in self.views for name in judges))

    @property
    def universal(self) -> bool:
        """True if one perturbation, fitted on training images, is added to all images."""
        return self.preimage["attack"] in UNIVERSAL

    @property
    def route(self) -> str:
        return self.preimage["route"]["name"] if self.source is not None else ""

    @property
    def norm(self) -> str:
        return self.preimage.get("norm", "")

    @property
    def budget(self) -> float:
        """The radius; infinite for a minimal attack, 0 for the clean images."""
        budget = self.preimage.get("budget", 0.0)
        return math.inf if budget is None else budget

    @property
    def minimal(self) -> bool:
        """True if the attack searches for the smallest perturbation."""
        return math.isinf(self.budget)

    @property
    def seed(self) -> int | None:
        """The seed of the random numbers, or None if there are none."""
        return self.preimage.get("seed")

    @property
    def options(self) -> dict[str, Any]:
        """The options of the attack that are not its defaults."""
        return self.preimage.get("options", {})

    @property
    def fit_steps(self) -> int:
        """The steps of fitting the surrogate."""
        return self.preimage["route"]["fit_steps"]

    @property
    def leave_early(self) -> bool:
        """True if an image may stop once it fools the source."""
        return self.preimage.get("leave_early", False)

    @property
    def clean(self) -> bool:
        return self.preimage["attack"] == "none"

    def describe(self) -> str:
        """Return threat, source, route, attack and budget as one line."""
        if self.clean:
            return "clean images"
        size = f"{255 * self.budget:.4g}/255" if self.norm == "linf" else f"{self.budget:.4g}"
        size = size if math.isfinite(self.budget) else "smallest"
        seed = "" if self.seed is None else f" seed {self.seed}"
        threat, source, _ = self.views[0]
        return " ".join(f"{threat} {source} {self.route} {self.attack} {self.norm} {size}{seed}".split())


def key_of(preimage: dict[str, Any]) -> str:
    """Return 32 hexadecimal digits that identify these facts, in any order."""
    return hashlib.sha256(json.dumps(preimage, sort_keys=True).encode()).hexdigest()[:32]


class PlannedAttack(NamedTuple):
    """An attack function with checked options."""

    label: str  # its name in tables
    function: Callable
    options: dict[str, Any]

    @property
    def takes(self) -> str:
        """The kind of attack, by what it needs of a source (threats/knowledge.py)."""
        if self.function in UNIVERSAL.values():
            return TRAINING_IMAGES
        return ANSWERS if getattr(self.function, "answers_only", False) else GRADIENTS

    @property
    def draws_random_numbers(self) -> bool:
        """True if the seed can change the result: a random start or target, or a random attack (`attack.random`)."""
        start = inspect.signature(self.function).parameters.get("random_start")
        starts = start is not None and self.options.get("random_start", start.default)
        return bool(starts or self.options.get("targets") == "random" or getattr(self.function, "random", False))


def attack_of(cell: Cell) -> PlannedAttack:
    """Return the attack of a planned cell."""
    return planned_attack(cell.attack, Attack(cell.preimage["attack"], cell.options))


def planned_attack(label: str, chosen: Attack) -> PlannedAttack:
    """Return the attack that was chosen. Raises ValueError for options that its signature does not have.

    `targets` is the engine's own option: how each image's target class is chosen (evaluation/targets.py).
    """
    choose(f"attack.{label}.name", chosen.name, [*ATTACKS, *UNIVERSAL, *VARIANTS])
    name, variant = VARIANTS.get(chosen.name, (chosen.name, {}))
    function, given = {**ATTACKS, **UNIVERSAL}[name], {**variant, **chosen.options}
    allowed = [option for option in inspect.signature(function).parameters if option not in _GIVEN]
    aim = given.pop("targets", None)
    if aim is not None:
        choose(f"attack.{label}.targets", aim, targets.TARGETS)
    if "eps" in given:
        raise ValueError(f"attack.{label}.eps: radii are given as budgets, such as budgets.linf=[8/255]")
    known = allowed if name in UNIVERSAL else [*allowed, "targets"]
    for option in [*given, *([] if aim is None else ["targets"])]:
        if option not in known:
            what = f"attack.{label}.{option}{nearest(option, known)}: {name} has no such option"
            raise ValueError(f"{what}; allowed are {', '.join(known)}")
    choose(f"attack.{label}.loss", given.get("loss", "margin"), LOSSES)
    try:  # on no images at all: the attack checks its options and computes nothing
        none = torch.empty(0, 2), torch.empty(0, dtype=torch.int64)
        radius = {} if function.minimal else {"eps": 0.0}
        aims = {} if aim is None else {"targets": none[1]}
        inputs = [[none]] if name in UNIVERSAL else none
        function(lambda images: images, *inputs, norm=function.norms[0], **radius, **aims, **given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"attack.{label}: invalid options of {name}: {error}") from None
    return PlannedAttack(label, function, given if aim is None else {**given, "targets": aim})
