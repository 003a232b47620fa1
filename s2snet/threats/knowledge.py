"""Define threats: the attacker's knowledge decides what is differentiated, who judges, and who may leave early.

A threat is a function from the defences under evaluation to attempts. To add one, write a function, a line in THREATS
and a YAML.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from s2snet.config.evaluation import Threat
from s2snet.models import Defended
from s2snet.threats.routes import ROUTES

# Kinds of attacks, by what they need: gradients of a source, its answers only, or training images.
GRADIENTS, ANSWERS, TRAINING_IMAGES = "gradients", "answers", "training images"
TAKES = {"query": ANSWERS, "universal": TRAINING_IMAGES}  # by threat; gradients otherwise


@dataclass(frozen=True)
class Attempt:
    """One source for the attacks, and the defences that judge the images."""

    threat: str
    of: str  # the defence that the source is built from
    route: str
    judges: tuple[str, ...]
    sole_judge: bool  # the only judge gives the source's answers: an image may leave once it fools
    bare: bool = False  # the source is the defence's classifier without its purifier
    options: dict[str, Any] = field(default_factory=dict)  # of the route

    @property
    def takes(self) -> str:
        """The kind of attack that this source is for."""
        return TAKES.get(self.threat, GRADIENTS)

    @property
    def source_name(self) -> str:
        return "none" if self.bare else self.of

    def defended(self, defences: dict[str, Defended]) -> Defended:
        """Return the module that is attacked, built from parts of these defences or of copies of them."""
        return Defended(None, defences[self.of].classifier) if self.bare else defences[self.of]


@dataclass(frozen=True)
class Facts:
    """Functions that a threat may call on modules."""

    fingerprint: Callable[[nn.Module], str]
    random: Callable[[nn.Module], bool]  # True if two passes over the same images differ


def gray_box(defences: dict[str, Defended], threat: Threat, facts: Facts) -> list[Attempt]:
    """The attacker has the classifier but not the purifier: gradients of the bare classifier.

    One source per classifier that has a purifier in front or is evaluated bare. Its judges are the defences with that
    classifier, and those without a purifier (for these it is a transfer from another classifier).
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


def white_box(defences: dict[str, Defended], threat: Threat, facts: Facts) -> list[Attempt]:
    """The attacker has everything: each defence by each of the threat's routes that is offered for it.

    Without a purifier there is only `exact`. A defence that answers at random always gets `eot`, even if it is not
    among the routes: without it the accuracy would be meaningless.
    """
    attempts = []
    for name, defended in defences.items():
        random = facts.random(defended)
        routes = list(threat.routes) if defended.has_purifier else ["exact"]
        if random and "eot" not in routes:
            routes.append("eot")
        for route in routes:
            if ROUTES[route].offered(defended, random):
                options = {option: getattr(threat, option) for option in ROUTES[route].options}
                attempts.append(Attempt("white_box", name, route, (name,), sole_judge=True, options=options))
    return attempts


def transfer(defences: dict[str, Defended], threat: Threat, facts: Facts) -> list[Attempt]:
    """The attacker has similar models: each defence is a source, and all others judge.

    `threat.sources` names the defences that serve as sources; None takes all of them.
    """
    sources = list(defences) if threat.sources is None else threat.sources
    for name in sources:
        if name not in defences:
            raise ValueError(f"threat.transfer.sources={name}: allowed are the defences {', '.join(defences)}")
    return [
        Attempt("transfer", name, "exact", tuple(other for other in defences if other != name), sole_judge=False)
        for name in sources
        if len(defences) > 1
    ]


def query(defences: dict[str, Defended], threat: Threat, facts: Facts) -> list[Attempt]:
    """The attacker sees only answers: each defence by the attacks that take no gradients."""
    return [Attempt("query", name, "exact", (name,), sole_judge=True) for name in defences]


def universal(defences: dict[str, Defended], threat: Threat, facts: Facts) -> list[Attempt]:
    """The attacker has training images and fits one perturbation for all test images; every defence judges.

    It is fitted to each source of the gray box, and to each defence by each of the threat's routes.
    """
    attempts: dict[tuple[str, str], Attempt] = {}
    for attempt in (*gray_box(defences, threat, facts), *white_box(defences, threat, facts)):
        place = facts.fingerprint(attempt.defended(defences)), attempt.route
        alike = replace(attempt, threat="universal", judges=tuple(defences), sole_judge=False)
        attempts.setdefault(place, alike)
    return list(attempts.values())


THREATS: dict[str, Callable[[dict[str, Defended], Threat, Facts], list[Attempt]]] = {
    "gray_box": gray_box,
    "white_box": white_box,
    "transfer": transfer,
    "query": query,
    "universal": universal,
}
