"""Read lengths in pixels, which a user writes as 8/255 or as a number in [0, 1] units."""

import math

Pixels = int | float | str  # as it is written; a float once it is checked


def pixels(name: str, value: Pixels, largest: float = math.inf) -> float:
    """Return a length in [0, 1] pixel units from a number or a text such as 8/255.

    ValueError, in one line, for what is no number, is negative, or is above `largest`, which is most likely meant in
    1/255.
    """
    try:
        top, _, bottom = str(value).partition("/")
        length = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name}={value}: not a radius; write 8/255 or a number") from None
    if not 0 <= length < math.inf:
        raise ValueError(f"{name}={value}: a radius is at least 0")
    if length > largest:
        raise ValueError(f"{name}={value}: radii are in [0, 1] pixel units (did you mean {length:g}/255?)")
    return length


def linf(name: str, value: Pixels) -> float:
    """Return a Linf radius, at most the range of a pixel."""
    return pixels(name, value, largest=1.0)
