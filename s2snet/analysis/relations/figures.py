"""Figures of study=relations: transfer and cross matrices, leaders over the levels, information against accuracy."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from s2snet.report.figures.curves import label_ends, percent_axis, room
from s2snet.report.palette import LIGHT, MARKERS, colour
from s2snet.report.studies.figure import Figure
from s2snet.report.svg import GROUND, INK

TITLE = "Relations of classifiers"
QUESTION = (
    "Which classifier is fooled most by perturbations crafted against others, and whose perturbations transfer best, "
    "at equal normalised L2 (arXiv 1803.07994)? Can a classifier read images behind another one's S2SNet, and does "
    "that put the classifiers in an order (arXiv 1803.08337)?"
)
Rows = list[dict[str, Any]]
JUDGES = {"bare": "Bare judges", "S2SNet": "Judges behind their own S2SNets"}


def figures(tables: Mapping[str, Rows]) -> list[Figure]:
    """Return the transfer matrices of the middle level, the means over the levels, the cross matrix, information."""
    names = [row["network"] for row in tables["networks"]]
    transfer, cross = tables["transfer"], tables["cross"]
    levels = sorted({row["level"] for row in transfer})
    middle = levels[len(levels) // 2]
    drawn = []
    for judges, title in JUDGES.items():
        rows = [row for row in transfer if (row["judges"], row["level"]) == (judges, middle)]
        if rows:
            cells = {(row["source"], row["judge"]): row["fooled"] for row in rows}
            caption = (
                f"Share of {rows[0]['n']} images fooled at normalised L2 {middle:g}. Rows: the classifier that the "
                "example is crafted against; columns: the judge."
            )
            drawn.append(
                _matrix(f"transfer-{judges.lower()}", title, names, cells, caption, "crafted against", "judged by")
            )
    bare = [row for row in transfer if row["judges"] == "bare"]
    for name, title, key, caption in (
        ("easiest", "Fooled by the others' examples", "judge", "Mean over the other sources: a column."),
        ("furthest", "Fooling the others", "source", "Mean over the other judges: a row."),
    ):
        draw = partial(_lines, names=names, points=_means(bare, key, names, levels), levels=levels)
        drawn.append(Figure(name, title, draw, caption, right=room(dict(zip(names, names, strict=True)))))
    cells = {(row["signal"], row["reader"]): row["accuracy"] for row in cross}
    least = min(cells.values())
    caption = (
        f"Accuracy on {cross[0]['n']} images. Rows: the S2SNet that the images pass; columns: the classifier that "
        f"reads them. The lightest shade is the lowest value, {100 * least:.1f} %."
    )
    drawn.append(
        _matrix("cross", "Accuracy on each other's signals", names, cells, caption, "S2SNet of", "read by", least, 1)
    )
    return [*drawn, _information(names, tables["networks"], cross)]


def _means(rows: Rows, key: str, names: list[str], levels: list[float]) -> dict[str, list[float]]:
    """Return {network: percent per level} over the cells of its column or row, without its own cell."""
    means = {}
    for name in names:
        means[name] = []
        for level in levels:
            at = [r["fooled"] for r in rows if r["level"] == level and r[key] == name and r["source"] != r["judge"]]
            means[name].append(100 * sum(at) / len(at))
    return means


def _lines(axes: Axes, names: list[str], points: dict[str, list[float]], levels: list[float]) -> None:
    ends = []
    for slot, name in enumerate(names):
        tint, mark = LIGHT[colour(slot)], MARKERS[slot % len(MARKERS)]
        axes.plot(levels, points[name], color=tint, linewidth=1.6, marker=mark, markersize=4, clip_on=False)
        ends.append((points[name][-1], name, tint))
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set_xlabel("normalised L\u2082")
    percent_axis(axes)
    label_ends(axes, ends)


def _matrix(
    name: str,
    title: str,
    names: list[str],
    cells: dict[tuple[str, str], float],
    caption: str,
    down: str,
    across: str,
    low: float = 0.0,
    digits: int = 0,
) -> Figure:
    draw: Callable[[Axes], None] = partial(
        _draw_matrix, names=names, cells=cells, down=down, across=across, low=low, digits=digits
    )
    return Figure(name, title, draw, caption, width=4.6, height=0.9 + 0.45 * len(names))


def _draw_matrix(
    axes: Axes, names: list[str], cells: dict[tuple[str, str], float], down: str, across: str, low: float, digits: int
) -> None:
    """Draw cells with their percent, darker for higher values, with a framed diagonal; names to the left and above."""
    count = len(names)
    longest = max(map(len, names))
    left = min(0.12 + 0.018 * longest, 0.4)
    axes.set_position((left, 0.03, 0.98 - left, 0.97 - 0.62 / (0.9 + 0.45 * count)))
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            value = cells[row, column]
            shade = (value - low) / (1 - low) if low < 1 else 1
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=LIGHT[1], alpha=0.04 + 0.72 * shade, linewidth=0))
            tint = GROUND if shade > 0.62 else INK
            axes.text(j + 0.5, i + 0.5, f"{100 * value:.{digits}f}", ha="center", va="center", color=tint, fontsize=9)
        axes.add_patch(Rectangle((i + 0.03, i + 0.03), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=0.9))
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    places = [place + 0.5 for place in range(count)]
    axes.set_yticks(places, names)
    axes.set_xticks(places, [_wrapped(name) for name in names])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(f"{across} \u2192", loc="right")
    axes.set_ylabel(f"\u2190 {down}", loc="top")
    axes.tick_params(length=0, labelsize=8.5)
    for side in axes.spines.values():
        side.set_visible(False)


def _wrapped(name: str) -> str:
    """Return a name with a line break after each word."""
    return name.replace(" ", "\n").replace("_", "_\n")


def _information(names: list[str], networks: Rows, cross: Rows) -> Figure:
    return Figure(
        "information",
        "Mutual information and the others' accuracy",
        partial(_draw_information, networks=networks, cross=cross),
        "Horizontal: the mutual information of images and their outputs of the S2SNet, with its 95 % interval. "
        "Vertical: the mean accuracy of the other classifiers on these outputs.",
        right=room(dict(zip(names, names, strict=True))),
    )


def _draw_information(axes: Axes, networks: Rows, cross: Rows) -> None:
    ends = []
    for slot, row in enumerate(networks):
        others = [r["accuracy"] for r in cross if r["signal"] == row["network"] != r["reader"]]
        y = 100 * sum(others) / len(others)
        tint, mark = LIGHT[colour(slot)], MARKERS[slot % len(MARKERS)]
        axes.plot([row["nmi_low"], row["nmi_high"]], [y, y], color=tint, linewidth=1.2, clip_on=False)
        axes.plot([row["nmi"]], [y], color=tint, marker=mark, markersize=6, linestyle="none", clip_on=False)
        ends.append((y, row["network"], tint))
    axes.margins(x=0.08)
    axes.set_xlabel("mutual information, normalised")
    percent_axis(axes)
    label_ends(axes, ends)
