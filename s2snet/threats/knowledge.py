"""Threats: what the attacker knows decides what he differentiates, who judges, and whether images may leave early.

A threat is a function from the defences under evaluation to attempts; a new one is one function, one line in
THREATS and one YAML.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from s2snet.models import Defended
from s2snet.threats.routes import ROUTES

# Kinds of attacks, by what they need of a source: gradients, answers alone, or training images besides.
GRADIENTS, ANSWERS, TRAINING_IMAGES = "gradients", "answers", "training images"
TAKES = {"query": ANSWERS, "universal": TRAINING_IMAGES}  # by threat; gradients otherwise


@dataclass(frozen=True)
class Attempt:
    """One source for the attacks to ask, and the defences before which the images are judged."""

    threat: str
    of: str  # the defence that the source is made from
    route: str
    judges: tuple[str, ...]
    sole_judge: bool  # the one judge answers exactly as the source does: an image may leave once it fools
    bare: bool = False  # the source is the defence's classifier without its purifier
    options: dict[str, Any] = field(default_factory=dict)  # of the route

    @property
    def takes(self) -> str:
        """The one kind of attack that asks this source."""
        return TAKES.get(self.threat, GRADIENTS)

    @property
    def source_name(self) -> str:
        return "none" if self.bare else self.of

    def defended(self, defences: dict[str, Defended]) -> Defended:
        """The module that is attacked, made of parts of these defences (or of copies of them)."""
        return Defended(None, defences[self.of].classifier) if self.bare else defences[self.of]


@dataclass(frozen=True)
class Facts:
    """What a threat may ask about modules."""

    fingerprint: Callable[[nn.Module], str]
    random: Callable[[nn.Module], bool]  # whether two passes over the same images differ


Threat = Callable[[dict[str, Defended], dict[str, Any], Facts], list[Attempt]]


def gray_box(defences: dict[str, Defended], settings: dict[str, Any], facts: Facts) -> list[Attempt]:
    """The attacker has the classifier and does not know the purifier: gradients of the bare classifier.

    One source per classifier that a purifier stands before, or that is evaluated bare. Its judges are the defences
    before that classifier, and those without a purifier (for these it is a transfer from another classifier).
    """
    bare: dict[str, str] = {}
    for name, defended in sorted(defences.items(), key=lambda item: item[1].has_purifier):
        if defended.has_purifier or name == "none":
            bare.setdefault(facts.fingerprint(defended.classifier), name)
    return [
        Attempt(
            "gray_box",
            of,
            "exact",
            tuple(
                other
                for other, defended in defences.items()
                if not defended.has_purifier or facts.fingerprint(defended.classifier) == key
            ),
            sole_judge=False,
            bare=True,
        )
        for key, of in bare.items()
    ]


def white_box(defences: dict[str, Defended], settings: dict[str, Any], facts: Facts) -> list[Attempt]:
    """The attacker has everything: each defence by each route of the settings that says something about it.

    Without a purifier `exact` stands for all routes through one. `eot` is there for a defence that answers at
    random even where the settings leave it out: without it such a number means nothing.
    """
    found = []
    for name, defended in defences.items():
        random = facts.random(defended)
        wanted = list(settings["routes"]) if defended.has_purifier else ["exact"]
        if random and "eot" not in wanted:
            wanted.append("eot")
        for route in wanted:
            if ROUTES[route].offered(defended, random):
                options = {option: settings[option] for option in ROUTES[route].options}
                found.append(Attempt("white_box", name, route, (name,), sole_judge=True, options=options))
    return found


def transfer(defences: dict[str, Defended], settings: dict[str, Any], facts: Facts) -> list[Attempt]:
    """The attacker has relatives: other classifiers, other purifiers, the plain autoencoder; every other one judges.

    `settings["sources"]` names the defences that serve as source; null takes all of them.
    """
    sources = list(defences) if settings["sources"] is None else settings["sources"]
    for name in sources:
        if name not in defences:
            raise ValueError(f"threat.transfer.sources={name}: not among the defences {', '.join(defences)}")
    return [
        Attempt("transfer", name, "exact", tuple(other for other in defences if other != name), sole_judge=False)
        for name in sources
        if len(defences) > 1
    ]


def query(defences: dict[str, Defended], settings: dict[str, Any], facts: Facts) -> list[Attempt]:
    """The attacker sees answers only: each defence by the attacks that take no gradients."""
    return [Attempt("query", name, "exact", (name,), sole_judge=True) for name in defences]


def universal(defences: dict[str, Defended], settings: dict[str, Any], facts: Facts) -> list[Attempt]:
    """The attacker has training images and makes one perturbation for all others; every defence judges.

    It is fitted to each source of the gray box, and to each defence by each route of the settings.
    """
    found: dict[tuple[str, str], Attempt] = {}
    for attempt in (*gray_box(defences, settings, facts), *white_box(defences, settings, facts)):
        place = facts.fingerprint(attempt.defended(defences)), attempt.route
        alike = replace(attempt, threat="universal", judges=tuple(defences), sole_judge=False)
        found.setdefault(place, alike)
    return list(found.values())


THREATS: dict[str, Threat] = {
    "gray_box": gray_box,
    "white_box": white_box,
    "transfer": transfer,
    "query": query,
    "universal": universal,
}
