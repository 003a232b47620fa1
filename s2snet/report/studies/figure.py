"""One figure of a study: how it is drawn, its title and its caption."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes


@dataclass(frozen=True)
class Figure:
    """A figure of `width` x `height` inches, drawn by `draw(axes)`; `right` is the share of the width for labels."""

    name: str  # becomes figures/NAME.svg
    title: str
    draw: Callable[[Axes], None]
    caption: str = ""  # how to read it
    width: float = 4.3
    height: float = 3.0
    right: float = 0.0
