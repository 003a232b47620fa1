"""Figures of study=linearity: scores along a step, errors over eps, training, the paper's figures and ours."""

from functools import partial
from typing import Any

from matplotlib.axes import Axes

from s2snet.report.figures.curves import label_ends, percent_axis
from s2snet.report.palette import LIGHT, MARKERS
from s2snet.report.studies.figure import Figure

TITLE = "The linear explanation"
QUESTION = (
    "According to Goodfellow, Shlens and Szegedy (arXiv 1412.6572), nets are fooled because they are too linear: many "
    "small changes of pixels add up. Are scores straight along the step, does the effect grow with the number of "
    "pixels, and do training on such steps, noise, weight decay or another kind of unit help?"
)
SLOT = {"maxout": 1, "adversarial": 2, "softmax": 3, "rbf": 4, "tanh": 5, "signs": 6, "uniform": 7}
TITLES = {"adversarial": "maxout, adversarial", "signs": "maxout, ±eps noise", "uniform": "maxout, U noise"}
Rows = list[dict[str, Any]]


def figures(tables: dict[str, Rows]) -> list[Figure]:
    """Return all figures."""
    traced = {net: _first_image(tables["traces"], net) for net in ("maxout", "tanh")}
    return [
        *(
            Figure(
                f"traces-{net}",
                f"Scores of {net} along the direction",
                partial(_traces, rows),
                f"A line per class; the label, {rows[0]['label']}, is bold. Offset 0 is image {rows[0]['image']}.",
            )
            for net, rows in traced.items()
        ),
        Figure(
            "lines",
            "Variance left by straight pieces",
            partial(_lines, tables["lines"]),
            "Of each class's score along the direction, mean over images and classes; 0 at one piece is linear.",
            right=0.42,
        ),
        Figure(
            "errors",
            "Error under one sign step",
            partial(_errors, tables["errors"]),
            "Not clipped; each net against its own step, with the 95 % interval.",
            right=0.34,
        ),
        Figure(
            "epochs",
            "Adversarial training, epoch by epoch",
            partial(_epochs, tables["curves"]),
            "Validation error of the adversarially trained maxout, clean and under its own step.",
            right=0.2,
        ),
        Figure(
            "alpha",
            "The share of the clean loss",
            partial(_alpha, tables["alpha"]),
            "alpha 1 is clean training.",
            right=0.2,
        ),
        Figure(
            "dimension",
            "eps |w|\u2081 of trained linear models",
            partial(_dimension, tables["dimension"]),
            "A point per draw of training images; the dashed line has power 1. Both axes are logarithmic.",
        ),
        Figure(
            "paper",
            "The paper's MNIST figures and ours",
            partial(_paper, tables["paper"]),
            "Open: the paper. Filled: here, with the 95 % interval; crosses: the clipped step.",
            width=11.5,
            height=8.2,
        ),
    ]


def _first_image(rows: Rows, net: str) -> Rows:
    of_net = [row for row in rows if row["net"] == net]
    return [row for row in of_net if row["image"] == of_net[0]["image"]]


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _traces(rows: Rows, axes: Axes) -> None:
    offsets = [row["offset"] for row in rows]
    scores = [key for key in rows[0] if key.startswith("score ")]
    for place, key in enumerate(scores):
        own = key == f"score {rows[0]['label']}"
        tint = LIGHT[1 + place % (len(LIGHT) - 1)]
        axes.plot(offsets, [row[key] for row in rows], color=tint, linewidth=2.6 if own else 1, zorder=3 if own else 2)
    axes.axvline(0, color=LIGHT[0], linewidth=0.8, linestyle=":")
    axes.set_xlabel("offset along the direction")
    _plain(axes)


def _lines(rows: Rows, axes: Axes) -> None:
    columns = [key for key in rows[0] if key.startswith("left by ")]
    nets = [net for net in SLOT if any(row["net"] == net for row in rows)]
    for net in nets:
        of_net = [row for row in rows if row["net"] == net]
        shares = [max(sum(row[key] for row in of_net) / len(of_net), 1e-8) for key in columns]
        axes.plot(range(1, len(columns) + 1), shares, **_look(net), label=TITLES.get(net, net))
    axes.set_yscale("log")
    axes.set_xticks(range(1, len(columns) + 1))
    axes.set_xlabel("straight pieces")
    _plain(axes)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)


def _errors(rows: Rows, axes: Axes) -> None:
    ends = []
    for net in SLOT:
        points = [row for row in rows if row["net"] == row["made_on"] == net and not row["clipped"]]
        points.sort(key=lambda row: row["eps"])
        eps = [row["eps"] for row in points]
        error, low, high = ([100 * row[key] for row in points] for key in ("error", "low", "high"))
        axes.fill_between(eps, low, high, color=LIGHT[SLOT[net]], alpha=0.14, linewidth=0)
        axes.plot(eps, error, **_look(net))
        ends.append((error[-1], TITLES.get(net, net), LIGHT[SLOT[net]]))
    axes.set_xlabel("eps")
    percent_axis(axes)
    label_ends(axes, ends)


def _epochs(rows: Rows, axes: Axes) -> None:
    of_net = [row for row in rows if row["net"] == "adversarial"]
    ends = []
    for column, title, slot in (("validation", "clean", 1), ("adversarial_validation", "stepped", 2)):
        errors = [100 * row[column] for row in of_net]
        axes.plot([row["epoch"] for row in of_net], errors, color=LIGHT[slot], linewidth=1.6)
        least = min(range(len(errors)), key=errors.__getitem__)
        axes.plot(of_net[least]["epoch"], errors[least], color=LIGHT[slot], marker="o", markersize=6)
        ends.append((errors[-1], title, LIGHT[slot]))
    axes.set_xlabel("epoch (the dot: the least error)")
    percent_axis(axes)
    label_ends(axes, ends)


def _alpha(rows: Rows, axes: Axes) -> None:
    ends = []
    for attack, slot in (("clean", 1), ("stepped", 2)):
        alphas = [row["alpha"] for row in rows]
        error, low, high = ([100 * row[f"{attack}{end}"] for row in rows] for end in ("", "_low", "_high"))
        axes.fill_between(alphas, low, high, color=LIGHT[slot], alpha=0.14, linewidth=0)
        axes.plot(alphas, error, color=LIGHT[slot], marker=MARKERS[slot], markersize=4, linewidth=1.6)
        ends.append((error[-1], attack, LIGHT[slot]))
    axes.set_xlabel("alpha")
    percent_axis(axes)
    label_ends(axes, ends)


def _dimension(rows: Rows, axes: Axes) -> None:
    pixels = [row["pixels"] for row in rows]
    axes.plot(pixels, [row["worst"] for row in rows], color=LIGHT[1], marker="o", markersize=4, linestyle="none")
    least = min(pixels)
    start = [row["worst"] for row in rows if row["pixels"] == least]
    first = sum(start) / len(start)
    axes.plot([least, max(pixels)], [first, first * max(pixels) / least], color=LIGHT[0], linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("pixels")
    _plain(axes)


def _paper(rows: Rows, axes: Axes) -> None:
    for place, row in enumerate(reversed(rows)):
        axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=LIGHT[1], linewidth=2.4)
        axes.plot(100 * row["found"], place, color=LIGHT[1], marker="o", markersize=5)
        axes.plot(100 * row["paper"], place, color=LIGHT[2], marker="D", markersize=7, fillstyle="none")
        if row["clipped"] is not None:
            axes.plot(100 * row["clipped"], place, color=LIGHT[0], marker="x", markersize=5)
    axes.set_yticks(range(len(rows)), [row["what"] for row in reversed(rows)])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("%")
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    # the labels at the left need almost half of the width
    box = axes.get_position()
    axes.set_position((0.47, box.y0, 0.51, box.height))


def _look(net: str) -> dict[str, Any]:
    return {"color": LIGHT[SLOT[net]], "marker": MARKERS[SLOT[net]], "markersize": 4, "linewidth": 1.6}
