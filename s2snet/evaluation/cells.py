"""Cells and their keys: whatever changes the numbers changes the key, and nothing else does."""

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from s2snet.attacks import ATTACKS, LOSSES, UNIVERSAL, VARIANTS
from s2snet.config.choices import choose, nearest
from s2snet.evaluation import targets
from s2snet.evaluation.foreign import ForeignImages
from s2snet.evaluation.schema import CLEAN, SCHEMA_VERSION
from s2snet.models import Defended
from s2snet.threats import ROUTES, SURROGATES, THREATS, Attempt, Facts
from s2snet.threats.knowledge import ANSWERS, GRADIENTS, TAKES, TRAINING_IMAGES

# What the engine gives an attack; everything else is an option from the settings.
_GIVEN = ("model", "batches", "images", "labels", "eps", "norm", "noise", "targets", "leave_early", "passes")


@dataclass
class Cell:
    """One crafting job: a source differentiated by a route, an attack with its options, a norm and a budget."""

    preimage: dict[str, Any]  # everything the adversarial images depend on, as JSON
    attack: str  # the label under which the settings hold it
    views: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)  # (threat, source name, judges)
    source: nn.Module | None = None  # None for clean and foreign images
    fast: nn.Module | None = None  # the copy of the source that is attacked; the source itself where there is none
    surrogate: nn.Module | None = None  # part of both, to be fitted before the cell can run
    shift: torch.Tensor | None = None  # the perturbation of all images, [C, H, W], to be made before a universal cell
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
        """Whether one perturbation, made on training images, moves all images."""
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
    def seed(self) -> int | None:
        """Of the random numbers; None where there are none."""
        return self.preimage.get("seed")

    @property
    def clean(self) -> bool:
        return self.preimage["attack"] == "none"

    def describe(self) -> str:
        """Threat, source, route, attack and budget, in a line."""
        if self.clean:
            return "clean images"
        size = f"{255 * self.budget:.4g}/255" if self.norm == "linf" else f"{self.budget:.4g}"
        size = size if math.isfinite(self.budget) else "smallest"
        seed = "" if self.seed is None else f" seed {self.seed}"
        threat, source, _ = self.views[0]
        return " ".join(f"{threat} {source} {self.route} {self.attack} {self.norm} {size}{seed}".split())


def key_of(preimage: dict[str, Any]) -> str:
    """32 hexadecimal digits that stand for these facts, in whatever order they come."""
    return hashlib.sha256(json.dumps(preimage, sort_keys=True).encode()).hexdigest()[:32]


def attack_of(cell: Cell) -> tuple[Callable, dict[str, Any]]:
    """The attack function of a planned cell and its options."""
    return options(cell.attack, {"name": cell.preimage["attack"], **cell.preimage["options"]})


def options(label: str, given: dict[str, Any]) -> tuple[Callable, dict[str, Any]]:
    """The attack function that a setting names and its options, checked against the function's signature.

    `targets` is the engine's own option: how each image's target class is chosen (evaluation/targets.py).
    """
    given = dict(given)
    name = given.pop("name", label)
    choose(f"attack.{label}.name", name, [*ATTACKS, *UNIVERSAL, *VARIANTS])
    name, form = VARIANTS.get(name, (name, {}))
    attack, given = {**ATTACKS, **UNIVERSAL}[name], {**form, **given}
    allowed = [option for option in inspect.signature(attack).parameters if option not in _GIVEN]
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
    try:  # on no images at all: it checks its options and computes nothing
        none = torch.empty(0, 2), torch.empty(0, dtype=torch.int64)
        radius = {} if attack.minimal else {"eps": 0.0}
        aims = {} if aim is None else {"targets": none[1]}
        asked = [[none]] if name in UNIVERSAL else none
        attack(lambda images: images, *asked, norm=attack.norms[0], **radius, **aims, **given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"attack.{label}: {name} refuses its options: {error}") from None
    return attack, given if aim is None else {**given, "targets": aim}


def kind(attack: Callable) -> str:
    """What an attack needs of a source (threats/knowledge.py)."""
    if attack in UNIVERSAL.values():
        return TRAINING_IMAGES
    return ANSWERS if getattr(attack, "answers_only", False) else GRADIENTS


def attempts(defences: dict[str, Defended], threats: dict[str, dict], facts: Facts) -> list[Attempt]:
    """What every threat of the settings gives for these defences."""
    found = []
    for label, threat in threats.items():
        choose(f"threat.{label}.name", threat["name"], THREATS)
        for route in threat["routes"]:
            choose(f"threat.{label}.routes", route, ROUTES)
        found += THREATS[threat["name"]](defences, threat, facts)
    return found


def plan(
    defences: dict[str, Defended],
    copies: dict[str, Defended],
    threats: dict[str, dict[str, Any]],
    attacks: dict[str, dict[str, Any]],
    budgets: dict[str, list[float]],
    seeds: list[int],
    chunk: int,
    data: dict[str, Any],
    facts: Facts,
    fit: dict[str, Any] | None = None,
    foreign: Iterable[ForeignImages] = (),
    precision: str = "32-true",
) -> list[Cell]:
    """The clean cells, those of the foreign images, and one for each source, route, attack, norm, budget and seed.

    Cells that several threats ask for are shared. Leaving early is decided here: only where every view has the
    source itself as its sole judge and the source answers the same each time. Where another judge waits for the
    images, all steps run for all. `copies` are faster copies of the defences, which are attacked in their place.
    `fit` says of what training images surrogates and perturbations are made; without it routes with a surrogate are
    left out. A minimal attack runs once for each of its norms in `budgets`, whatever the radii.
    """
    seeded = any(facts.random(module) for module in defences.values())
    common = {"data": data, "chunk": chunk, "schema": SCHEMA_VERSION}
    cells = [
        Cell({"attack": "none", **common, **seed}, "none", [(CLEAN, "", tuple(defences))])
        for seed in ([{"seed": seed} for seed in seeds] if seeded else [{}])
    ]
    for images in foreign:
        cells += _foreign(images, budgets, seeds if seeded else [None], common, tuple(defences))
    known = {label: options(label, given) for label, given in attacks.items()}
    for label, (attack, _) in known.items():
        if budgets and not set(attack.norms) & {norm for norm in budgets if attack.minimal or budgets[norm]}:
            raise ValueError(
                f"attack.{label}: knows {', '.join(attack.norms)}, and budgets has none of them; "
                f"add budgets.{attack.norms[0]}=[{'' if attack.minimal else '0.5'}]"
            )
    groups: dict[str, list[Attempt]] = {}
    attempted = attempts(defences, threats, facts)
    _go_together([threat["name"] for threat in threats.values()], known, fit)
    for attempt in attempted:
        if ROUTES[attempt.route].surrogate is not None and fit is None:
            continue
        named = [facts.fingerprint(attempt.defended(defences)), attempt.route, attempt.options, attempt.takes]
        groups.setdefault(json.dumps(named, sort_keys=True), []).append(attempt)
    for group in groups.values():
        attempt = group[0]
        module, copy = attempt.defended(defences), attempt.defended(copies)
        route = ROUTES[attempt.route]
        surrogate, fitted = None, None
        if route.surrogate is not None:
            surrogate = SURROGATES[route.surrogate](data["channels"])
            fitted = {"surrogate": route.surrogate, "purifier": facts.fingerprint(module.purifier), **fit}
        source, fast = (route.build(part, surrogate, **attempt.options) for part in (module, copy))
        random = facts.random(module)
        leave_early = all(other.sole_judge for other in group) and not random
        views = [(other.threat, other.source_name, other.judges) for other in group]
        for label, (attack, chosen) in known.items():
            if kind(attack) != attempt.takes:
                continue
            if attempt.route == "eot":
                if "draws" not in inspect.signature(attack).parameters:
                    continue
                chosen = chosen | {"draws": max(attempt.options["draws"], chosen.get("draws", 1))}
            several = seeded or _draws_random_numbers(attack, chosen)
            for norm, radii in budgets.items():
                if norm not in attack.norms:
                    continue
                for budget in [None] if attack.minimal else radii:
                    for seed in seeds if several else [None]:
                        preimage = {
                            "source": facts.fingerprint(module),
                            "route": {"name": attempt.route, **attempt.options},
                            "fit": fitted,
                            "attack": attack.__name__,
                            "options": chosen,
                            "version": attack.version,
                            "norm": norm,
                            "budget": budget,
                            "leave_early": leave_early,
                            "fast": _differs(module, copy),
                            "precision": precision,
                            "seed": seed,
                            **common,
                            **({"training_images": fit["train"]} if attempt.takes == TRAINING_IMAGES else {}),
                        }
                        cells.append(Cell(preimage, label, views, source, fast, surrogate))
    return cells


def _go_together(threats: list[str], known: dict[str, tuple[Callable, dict]], fit: dict | None) -> None:
    """ValueError for an attack that no threat takes, and for a threat that takes none of the attacks."""
    kinds = {label: kind(attack) for label, (attack, _) in known.items()}
    takes = {name: TAKES.get(name, GRADIENTS) for name in threats}
    for label, needed in kinds.items():
        if takes and needed not in takes.values():
            threat = next((name for name, taken in TAKES.items() if taken == needed), "white_box")
            raise ValueError(
                f"attack.{label}: none of the threats here takes it; add {threat} to threat=[...], or leave it out"
            )
    for name, taken in takes.items():
        if kinds and taken not in kinds.values():
            attack = {ANSWERS: "square", TRAINING_IMAGES: "uap"}.get(taken, "apgd")
            raise ValueError(
                f"threat.{name}: takes none of the attacks here; add {attack} to attack=[...], or leave it out"
            )
        if taken == TRAINING_IMAGES and fit is None:
            raise ValueError(f"threat.{name}: needs training images, and there are none; leave it out of threat=[...]")


def _differs(module: Defended, copy: Defended) -> bool:
    """Whether the copy is another network than the module: folding gives the network itself where it cannot."""
    return copy.classifier is not module.classifier or (module.has_purifier and copy.purifier is not module.purifier)


def _draws_random_numbers(attack: Callable, chosen: dict[str, Any]) -> bool:
    """Whether the seed can change what the attack does: a random start or target, or always (`attack.random`)."""
    start = inspect.signature(attack).parameters.get("random_start")
    starts = start is not None and chosen.get("random_start", start.default)
    return bool(starts or chosen.get("targets") == "random" or getattr(attack, "random", False))


def _foreign(
    images: ForeignImages, budgets: dict[str, list[float]], seeds: list, common: dict, judges: tuple[str, ...]
) -> list[Cell]:
    """Cells of a file's images: as they are and rounded to 8 bits, for each budget."""
    cells = []
    for eight_bits in (False, True):
        for norm, radii in budgets.items():
            for budget in radii:
                for seed in seeds:
                    preimage = {
                        "attack": "foreign",
                        "file": images.fingerprint,
                        "eight_bits": eight_bits,
                        "norm": norm,
                        "budget": budget,
                        "seed": seed,
                        **common,
                    }
                    label = images.name + ("_8bit" if eight_bits else "")
                    cells.append(Cell(preimage, label, [("foreign", "", judges)], foreign=images))
    return cells
