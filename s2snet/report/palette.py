"""Colours of the defences, for light and dark pages, and the slot each defence has among them."""

UNDEFENDED = "none"  # the schema's name for the bare classifier
# Slot 0 is the undefended classifier's. Each stands 4.5 : 1 or better against its page's ground.
LIGHT = ("#66645f", "#1b5e9b", "#b1440d", "#2c6e49", "#7b4a9d", "#856100", "#a32e68", "#12696f")
DARK = ("#a5a29b", "#79b4ea", "#f0925c", "#80c596", "#c69be3", "#d8b250", "#ee88b7", "#68c6c6")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p", "h")  # of another length, so a colour's second use differs


def slots(names: list[str]) -> dict[str, int]:
    """{defence: its slot}, counted on past the last colour; the undefended classifier has 0."""
    others = [name for name in names if name != UNDEFENDED]
    return {UNDEFENDED: 0} | {name: 1 + i for i, name in enumerate(others)}


def colour(slot: int) -> int:
    """The index of a slot's colour; later slots go round without the undefended classifier's gray."""
    return slot if slot < len(LIGHT) else 1 + (slot - 1) % (len(LIGHT) - 1)
