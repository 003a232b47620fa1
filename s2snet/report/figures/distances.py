"""Draw accuracy over the size of the perturbation, for all attacks of all threats: a step curve per defence."""

from matplotlib.axes import Axes

from s2snet.report.figures.curves import label_ends, percent_axis
from s2snet.report.palette import LIGHT, colour

# Axis labels of the distances in curves.csv.
AXES = {
    "l2_normalised": "normalised L\u2082, pixels in [0, 1]",
    "l2_standardised": "normalised L\u2082, of standardised pixels",
    "linf": "L\u221e in 1/255",
    "l2": "L\u2082",
}


def draw(lines: list[dict], axes: Axes, distance: str, titles: dict[str, str], slot: dict[str, int]) -> None:
    """Draw the worst-case points of curves.csv for one distance; `titles` lists the defences in order."""
    scale = 255 if distance == "linf" else 1
    ends, largest = [], 0.0
    for name, title in titles.items():
        points = [(line["at"] * scale, 100 * line["accuracy"]) for line in lines if line["defence"] == name]
        if not points:
            continue
        x, y = zip(*sorted(points), strict=True)
        tint = LIGHT[colour(slot[name])]
        axes.step(x, y, where="post", color=tint, linewidth=1.6, clip_on=False)
        largest = max(largest, x[-1])
        ends.append((y[-1], title, tint, x[-1]))
    for y, _, tint, x in ends:  # beyond the last find nothing more is known to fall
        axes.plot([x, largest], [y, y], color=tint, linewidth=1.0, linestyle=(0, (1, 2)), clip_on=False)
    axes.set_xlim(0, largest or 1)
    axes.set_xlabel(AXES[distance])
    percent_axis(axes)
    label_ends(axes, [(y, title, tint) for y, title, tint, _ in ends])
