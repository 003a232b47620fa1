"""Threats: what the attacker knows decides what he differentiates, who judges, and whether images may leave early.

A threat is a function from the defences under evaluation to attempts; a new one is one function and one line.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from s2snet.models import Defended
from s2snet.threats.routes import ROUTES


@dataclass(frozen=True)
class Attempt:
    """One source for the attacks to differentiate, and the defences before which the images are judged."""

    threat: str
    source_name: str  # the defence it was made from
    route: str
    source: nn.Module
    judges: tuple[str, ...]
    sole_judge: bool  # the one judge answers exactly as the source does: an image may leave once it fools


Fingerprint = Callable[[nn.Module], str]


def gray_box(defences: dict[str, Defended], routes: list[str], fingerprint: Fingerprint) -> list[Attempt]:
    """The attacker has the classifier and does not know the defence: gradients of the bare classifier.

    One source per classifier that a purifier stands before, or that is evaluated bare. Its judges are the defences
    before that classifier, and those without a purifier (for these it is a transfer from another classifier).
    """
    del routes
    bare: dict[str, nn.Module] = {}
    for name, defended in sorted(defences.items(), key=lambda item: item[1].has_purifier):
        if defended.has_purifier or name == "none":
            bare.setdefault(fingerprint(defended.classifier), defended.classifier)
    return [
        Attempt(
            "gray_box",
            "none",
            "exact",
            Defended(None, classifier),
            tuple(
                other
                for other, defended in defences.items()
                if not defended.has_purifier or fingerprint(defended.classifier) == key
            ),
            sole_judge=False,
        )
        for key, classifier in bare.items()
    ]


def white_box(defences: dict[str, Defended], routes: list[str], fingerprint: Fingerprint) -> list[Attempt]:
    """The attacker has everything: each defence by each route. Without a purifier all routes are the exact one."""
    del fingerprint
    return [
        Attempt("white_box", name, route, ROUTES[route](defended), (name,), sole_judge=True)
        for name, defended in defences.items()
        for route in (routes if defended.has_purifier else ["exact"])
    ]


THREATS = {"gray_box": gray_box, "white_box": white_box}
