"""Figures of study=directions: accuracy and attacks in subspaces, scores and labels along directions."""

from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes

from s2snet.analysis.intervals import share
from s2snet.report.figures.curves import percent_axis
from s2snet.report.palette import LIGHT, MARKERS
from s2snet.report.studies.figure import Figure

TITLE = "Directions and subspaces"
QUESTION = (
    "Are the directions along which a classifier is most attackable those that it classifies by (Jetley, Lord, Torr, "
    "arXiv 1807.04200)? Per class: directions along which its score bends most, what happens along them, and what "
    "accuracy and attacks are left inside the subspaces that they span."
)
Rows = list[dict[str, Any]]
COLOURS = {
    "most": 1, "least": 2, "first": 3, "last": 4, "attacks": 5, "first_and_last": 6, "random": 0, "universal": 7,
}  # fmt: skip
TITLES = {
    "most": "most curved", "least": "least curved", "first": "most convex", "last": "most concave",
    "attacks": "of attacks", "first_and_last": "both ends", "random": "random", "universal": "universal",
}  # fmt: skip


def figures(tables: dict[str, Rows]) -> list[Figure]:
    """Return all figures; none if the study found no curvature and stopped."""
    if "subspaces" not in tables:
        return []
    subspaces, traces, lines = tables["subspaces"], tables["traces"], tables["lines"]
    right = {"right": 0.27}
    return [
        Figure(
            "accuracy",
            "Accuracy in a subspace",
            lambda axes: _accuracy(axes, subspaces),
            "Test images projected onto a subspace, with the mean of the rest restored; bands are 95 % intervals.",
            **right,
        ),
        Figure(
            "cheap",
            "Cheap attacks inside it",
            lambda axes: _cheap(axes, subspaces),
            "Share of whole images that DeepFool fools inside the subspace within the budget that the claims name.",
            **right,
        ),
        Figure(
            "trade_off",
            "Accuracy against cheap attacks",
            lambda axes: _trade_off(axes, subspaces),
            "A point per subspace; a line connects subspaces of one kind by growing dimension.",
            **right,
        ),
        Figure(
            "components",
            "Where free perturbations lie",
            lambda axes: _components(axes, tables["components"]),
            "Share of the length of DeepFool's own perturbations inside each subspace.",
            **right,
        ),
        Figure(
            "traces",
            "Scores along directions",
            lambda axes: _moves(axes, traces),
            "Mean absolute change of the class's score along its directions; s in gray levels of 255, RMS over pixels.",
            **right,
        ),
        Figure(
            "identity",
            "One label for all",
            lambda axes: _identity(axes, traces),
            "Share of test images with the commonest label, mean over directions.",
            **right,
        ),
        *(
            Figure(
                f"lines_{kind}",
                f"First class, {TITLES[kind]} direction",
                lambda axes, kind=kind: _lines(axes, lines, kind),
                "Its score along the direction, a line per image.",
            )
            for kind in ("first", "last", "least")
        ),
        Figure(
            "constants",
            "Constant steps",
            lambda axes: _constants(axes, tables["constants"]),
            "Share of labels changed by one step for all images, a point per direction, sorted.",
            **right,
        ),
    ]


def _curves(axes: Axes, curves: dict[str, list[tuple[float, ...]]]) -> None:
    """Draw a line per name through (x, y) or (x, y, low, high), with its title at the right end."""
    ends = []
    for name, points in curves.items():
        tint = LIGHT[COLOURS[name]]
        x, y, *bounds = zip(*points, strict=True)
        if bounds:
            axes.fill_between(x, *bounds, color=tint, alpha=0.12, linewidth=0)
        axes.plot(x, y, color=tint, linewidth=1.5, marker=MARKERS[COLOURS[name]], markersize=3.5, zorder=3)
        ends.append((y[-1], name))
    low, high = axes.get_ylim()
    place = -1.0
    for y, name in sorted(ends):
        place = max((y - low) / (high - low), place + 0.075)
        axes.text(1.03, place, TITLES[name], color=LIGHT[COLOURS[name]], va="center", transform=axes.transAxes)


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


def _by(rows: Rows, column: str) -> dict[Any, Rows]:
    """Return the rows by their value in a column."""
    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def _percent(right: int, n: int) -> tuple[float, float, float]:
    """Return a share and the ends of its 95 % interval, in percent."""
    estimate = share(right, n)
    return 100 * estimate.value, 100 * estimate.low, 100 * estimate.high


def _over_dimensions(axes: Axes, rows: Rows, right: str, n: str) -> None:
    percent_axis(axes)
    _curves(
        axes,
        {
            basis: [(row["dimensions"], *_percent(row[right], row[n])) for row in some]
            for basis, some in _by(rows, "basis").items()
        },
    )
    _in_powers(axes, rows)


def _in_powers(axes: Axes, rows: Rows) -> None:
    ticks = sorted({row["dimensions"] for row in rows})
    axes.set_xscale("log", base=2)
    # A tick label that would touch the next is left out.
    near = [after < 1.8 * tick for tick, after in pairwise(ticks)] + [False]
    axes.set_xticks(ticks, ["" if close else str(tick) for tick, close in zip(ticks, near, strict=True)])
    axes.minorticks_off()
    axes.set_xlabel("dimensions")


def _accuracy(axes: Axes, rows: Rows) -> None:
    _over_dimensions(axes, rows, "test_right", "test_n")


def _cheap(axes: Axes, rows: Rows) -> None:
    _over_dimensions(axes, rows, "cheap", "attacked")


def _trade_off(axes: Axes, rows: Rows) -> None:
    percent_axis(axes)
    curves = {
        basis: [(100 * row["cheap"] / row["attacked"], 100 * row["test_accuracy"]) for row in some]
        for basis, some in _by(rows, "basis").items()
    }
    _curves(axes, curves)
    axes.set_xlabel("fooled within the budget, %")
    axes.set_ylabel("accuracy")


def _components(axes: Axes, rows: Rows) -> None:
    percent_axis(axes)
    attacks = [row for row in rows if row["of"] == "attack"]
    columns = ("share", "low", "high")
    _curves(
        axes,
        {
            basis: [(row["dimensions"], *(100 * row[column] for column in columns)) for row in some]
            for basis, some in _by(attacks, "basis").items()
        },
    )
    _in_powers(axes, attacks)


def _mean_over(rows: Rows, column: str, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return {kind: (s in gray levels, mean of a column over directions)}."""
    return {
        kind: [(255 * s, scale * sum(row[column] for row in some) / len(some)) for s, some in _by(own, "s").items()]
        for kind, own in _by(rows, "kind").items()
    }


def _moves(axes: Axes, rows: Rows) -> None:
    curves = _mean_over(rows, "move")
    axes.set_ylim(0, 1.05 * max(y for points in curves.values() for _, y in points))
    _curves(axes, curves)
    _plain(axes)
    axes.set_xlabel("s in gray levels")


def _identity(axes: Axes, rows: Rows) -> None:
    percent_axis(axes)
    _curves(axes, _mean_over(rows, "top_share", 100))
    axes.set_xlabel("s in gray levels")


def _lines(axes: Axes, rows: Rows, kind: str) -> None:
    for some in _by([row for row in rows if row["kind"] == kind], "image").values():
        axes.plot(
            [255 * row["s"] for row in some], [row["score"] for row in some], color=LIGHT[COLOURS[kind]], linewidth=0.9
        )
    _plain(axes)
    axes.set_xlabel("s in gray levels")
    axes.set_ylabel("score")


def _constants(axes: Axes, rows: Rows) -> None:
    percent_axis(axes)
    curves = {}
    for kind, some in _by(rows, "kind").items():
        shares = sorted(100 * row["changed"] for row in some)
        curves[kind] = [(place / max(1, len(shares) - 1), share) for place, share in enumerate(shares)]
    _curves(axes, curves)
    axes.set_xticks([0, 1], ["lowest", "highest"])
