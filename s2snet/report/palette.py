"""Assign colours to defences, for light and dark pages."""

UNDEFENDED = "none"  # the schema's name for the bare classifier
# Slot 0 belongs to the undefended classifier. All have a contrast of at least 4.5 : 1 with the page background.
LIGHT = ("#66645f", "#1b5e9b", "#b1440d", "#2c6e49", "#7b4a9d", "#856100", "#a32e68", "#12696f")
DARK = ("#a5a29b", "#79b4ea", "#f0925c", "#80c596", "#c69be3", "#d8b250", "#ee88b7", "#68c6c6")
# More markers than colours, so that a colour used twice gets another marker.
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p", "h")


def slots(names: list[str]) -> dict[str, int]:
    """Return {defence: slot}; 0 for the undefended classifier. Slots may exceed the number of colours."""
    others = [name for name in names if name != UNDEFENDED]
    return {UNDEFENDED: 0} | {name: 1 + i for i, name in enumerate(others)}


def colour(slot: int) -> int:
    """Return the index of a slot's colour; slots beyond the last colour reuse all but the first, gray."""
    return slot if slot < len(LIGHT) else 1 + (slot - 1) % (len(LIGHT) - 1)
