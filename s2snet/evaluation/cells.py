"""Cells and their keys: whatever changes the numbers changes the key, and nothing else does."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from s2snet.attacks import ATTACKS, LOSSES
from s2snet.evaluation.schema import CLEAN, SCHEMA_VERSION
from s2snet.threats import ROUTES, THREATS, Attempt

# What the engine gives an attack; everything else is an option from the settings.
_GIVEN = ("model", "images", "labels", "eps", "norm", "noise", "targets", "leave_early", "passes")


@dataclass
class Cell:
    """One crafting job: a source differentiated by a route, an attack with its options, a norm and a budget."""

    preimage: dict[str, Any]  # everything the adversarial images depend on, as JSON
    source: nn.Module | None  # None for the clean images
    fast: nn.Module | None  # the copy of the source that is differentiated; the source itself where there is none
    attack: str  # the label under which the settings hold it
    views: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)  # (threat, source name, judges)
    status: str = "done"
    reason: str | None = None

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.preimage, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def judges(self) -> list[str]:
        return list(dict.fromkeys(name for _, _, judges in self.views for name in judges))

    def fail(self, reason: str) -> None:
        self.status, self.reason = "failed", reason


def options(label: str, given: dict[str, Any]) -> tuple[Callable, dict[str, Any]]:
    """The attack function that a setting names and its options, checked against the function's signature."""
    given = dict(given)
    name = given.pop("name", label)
    if name not in ATTACKS:
        raise ValueError(f"attack.{label}.name={name}: allowed are {', '.join(ATTACKS)}")
    if ATTACKS[name].minimal:
        within = [known for known, attack in ATTACKS.items() if not attack.minimal]
        raise ValueError(
            f"attack.{label}.name={name}: looks for the smallest perturbation, takes no budget; "
            f"allowed are {', '.join(within)}"
        )
    allowed = [option for option in inspect.signature(ATTACKS[name]).parameters if option not in _GIVEN]
    for option in given:
        if option not in allowed:
            raise ValueError(f"attack.{label}.{option}: {name} has no such option; allowed are {', '.join(allowed)}")
    if given.get("loss", "margin") not in LOSSES:
        raise ValueError(f"attack.{label}.loss={given['loss']}: allowed are {', '.join(LOSSES)}")
    try:  # on no images at all: it checks its options and computes nothing
        none = torch.empty(0, 1)
        ATTACKS[name](lambda images: images, none, none[:, 0].long(), eps=0.0, norm=ATTACKS[name].norms[0], **given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"attack.{label}: {name} refuses its options: {error}") from None
    return ATTACKS[name], given


def attempts(defences: dict[str, nn.Module], threats: dict[str, Any], fingerprint: Callable) -> list[Attempt]:
    """What every threat of the settings gives for these defences."""
    found = []
    for label, threat in threats.items():
        if threat["name"] not in THREATS:
            raise ValueError(f"threat.{label}.name={threat['name']}: allowed are {', '.join(THREATS)}")
        for route in threat["routes"]:
            if route not in ROUTES:
                raise ValueError(f"threat.{label}.routes={route}: allowed are {', '.join(ROUTES)}")
        found += THREATS[threat["name"]](defences, threat["routes"], fingerprint)
    return found


def plan(
    tried: list[Attempt],
    copies: list[Attempt],
    attacks: dict[str, dict[str, Any]],
    budgets: dict[str, list[float]],
    seed: int,
    chunk: int,
    data: dict[str, Any],
    fingerprint: Callable[[nn.Module], str],
    deterministic: Callable[[nn.Module], bool],
    defences: list[str],
) -> list[Cell]:
    """The clean cell and one cell for each source, route, attack, norm and budget, shared between threats.

    Leaving early is decided here: only where every view has the source itself as its sole judge and the source
    answers the same each time. Where another judge waits for the images, all steps run for all.
    `copies` are the same attempts on faster copies of the networks, which are differentiated in their place.
    """
    untouched = {"attack": "none", "data": data, "chunk": chunk, "schema": SCHEMA_VERSION}
    clean = Cell(untouched, None, None, "none", [(CLEAN, "", tuple(defences))])
    groups: dict[tuple[str, str], list[tuple[Attempt, nn.Module]]] = {}
    for attempt, fast in zip(tried, copies, strict=True):
        groups.setdefault((fingerprint(attempt.source), attempt.route), []).append((attempt, fast.source))
    cells = [clean]
    for (source, route), members in groups.items():
        group, fast = [attempt for attempt, _ in members], members[0][1]
        leave_early = all(attempt.sole_judge for attempt in group) and deterministic(group[0].source)
        for label, given in attacks.items():
            function, chosen = options(label, given)
            for norm, radii in budgets.items():
                if norm not in function.norms:
                    continue
                for eps in radii:
                    preimage = {
                        "source": source,
                        "route": route,
                        "fit": None,
                        "attack": function.__name__,
                        "options": chosen,
                        "version": function.version,
                        "norm": norm,
                        "budget": eps,
                        "leave_early": leave_early,
                        "fast": fast is not group[0].source,
                        "seed": seed,
                        "chunk": chunk,
                        "data": data,
                        "schema": SCHEMA_VERSION,
                    }
                    views = [(attempt.threat, attempt.source_name, attempt.judges) for attempt in group]
                    cells.append(Cell(preimage, group[0].source, fast, label, views))
    return cells
