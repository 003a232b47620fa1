"""One figure of a study: what draws it, and what is said beneath it."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes


@dataclass(frozen=True)
class Figure:
    """`draw(axes)` on axes of `width` x `height` inches; `right` is the share of the width left for labels."""

    name: str  # becomes figures/NAME.svg
    title: str
    draw: Callable[[Axes], None]
    caption: str = ""  # how to read it
    width: float = 4.3
    height: float = 3.0
    right: float = 0.0
