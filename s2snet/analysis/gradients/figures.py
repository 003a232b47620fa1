"""Figures of study=gradients: the measures by objective, spectra, norms, exchanged index maps."""

from functools import partial
from typing import Any

from matplotlib.axes import Axes

from s2snet.report.figures.curves import percent_axis, room, shortened
from s2snet.report.formatting import title_of
from s2snet.report.palette import LIGHT, MARKERS, colour, slots
from s2snet.report.studies.figure import Figure

TITLE = "Gradients and index maps"
QUESTION = (
    "Are gradients behind an S2SNet stripped of class-dependent signal, as its authors say (arXiv 1803.07994)? And "
    "what do the index maps carry past the bottleneck? The measures are ours: the paper's are not known."
)
OBJECTIVES = {
    "loss_at_label": "loss at\nlabel",
    "loss_at_prediction": "loss at\nguess",
    "top_logit": "top\nlogit",
    "fixed_logit": "one\nlogit",
}
NAMES = {"none": "bare classifier", "s2snet": "S2SNet"}
SAYS = {"code": "the code's class", "donor": "the indices' class", "neither": "another class"}
LINE = 0.09  # between two names to the right of the axes, as a share of their height

Rows = list[dict[str, Any]]


def figures(tables: dict[str, Rows]) -> list[Figure]:
    """Return all figures; that of exchanged index maps if there were any."""
    titles = {row["network"]: NAMES.get(row["network"], title_of(row["network"])) for row in tables["networks"]}
    rows, layout = tables["measures"], {"right": room(titles), "height": 3.2}
    dots = partial(_dots, rows, titles)
    drawn = [
        Figure(
            "class_gap",
            "(1) Cosine within a class minus that across classes",
            partial(dots, "class_gap"),
            "The axis shows what was differentiated; only the logit of one class carries no label. Bars are 95 % "
            "intervals over images.",
            **layout,
        ),
        Figure(
            "probe",
            "(2) A linear probe predicts the class from the gradient",
            partial(_probe, dots),
            "Cross-validated over images. Dashes: the same with shuffled labels.",
            **layout,
        ),
        Figure(
            "agreement",
            "(3) Cosine with the bare classifier's gradient",
            partial(dots, "agreement", control="agreement_stranger", without="none"),
            "Dashes: with another image's gradient. The bare classifier's own, which is 1, is not drawn.",
            **layout,
        ),
        Figure(
            "spectrum",
            "(4) Power spectrum of the gradient",
            partial(_spectrum, tables["spectrum"], titles),
            "Share of power at each frequency; gradient of the loss at the true label. One half is the finest pattern "
            "along an axis.",
            **layout,
        ),
        Figure(
            "edges",
            "(5) Rank correlation of |gradient| and the image's edges",
            partial(dots, "edges", control="edges_stranger"),
            "Dashes: with another image's edges.",
            **layout,
        ),
        Figure(
            "norms",
            "(6) Sizes of gradients",
            partial(_norms, tables["norms"], titles),
            "Images by the L2 norm of the gradient of the loss at the true label. Gradients of zeros are not drawn; "
            "their share is in measures.csv.",
            **layout,
        ),
    ]
    if "exchanges" in tables:
        drawn.append(
            Figure(
                "exchanges",
                "Predictions when index maps are exchanged",
                partial(_exchanges, tables["exchanges"]),
                "The S2SNet that unpools by index maps: one image's code with indices of its own, of an image of "
                "another class, drawn at random, or all alike; and its own indices with the mean code of all images.",
                right=room(SAYS),
                height=3.2,
            )
        )
    return drawn


def _tint(network: str, titles: dict[str, str]) -> tuple[str, str]:
    slot = slots(list(titles))[network]
    return LIGHT[colour(slot)], MARKERS[slot % len(MARKERS)]


def _names(axes: Axes, entries: list[tuple[str, str]]) -> None:
    """Write titles in their colours, one below the other, to the right of the axes."""
    for place, (title, tint) in enumerate(entries):
        at = (1.035, 1 - LINE * (place + 0.5))
        axes.text(*at, shortened(title), color=tint, va="center", transform=axes.transAxes, parse_math=False)


def _frame(axes: Axes) -> None:
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def _dots(
    rows: Rows,
    titles: dict[str, str],
    measure: str,
    axes: Axes,
    control: str = "",
    scale: float = 1,
    without: str = "",
) -> None:
    """Draw a group of dots per objective, one per network, and a dash for the control."""
    known = {(row["objective"], row["network"], row["measure"]): row for row in rows}
    step = 0.8 / len(titles)
    for place, objective in enumerate(OBJECTIVES):
        for number, network in enumerate(titles):
            if network == without:
                continue
            row = known[objective, network, measure]
            tint, mark = _tint(network, titles)
            x = place + step * (number - (len(titles) - 1) / 2)
            axes.plot([x, x], [scale * row["low"], scale * row["high"]], color=tint, linewidth=1.2)
            axes.plot(x, scale * row["value"], color=tint, marker=mark, markersize=4.5, clip_on=False)
            if control:
                value = scale * known[objective, network, control]["value"]
                axes.plot([x - 0.4 * step, x + 0.4 * step], [value, value], color=tint, linewidth=1.2)
    axes.set_xlim(-0.5, len(OBJECTIVES) - 0.5)
    axes.set_xticks(range(len(OBJECTIVES)), OBJECTIVES.values())
    axes.axhline(0, color=LIGHT[0], linewidth=0.8)
    _frame(axes)
    _names(axes, [(title, _tint(network, titles)[0]) for network, title in titles.items()])


def _probe(dots, axes: Axes) -> None:
    dots("probe", axes, control="probe_shuffled", scale=100)
    percent_axis(axes)


def _lines(axes: Axes, titles: dict[str, str], lines: dict[str, tuple[list, list]], **how: Any) -> None:
    for network in titles:
        axes.plot(*lines[network], color=_tint(network, titles)[0], linewidth=1.6, **how)
    _frame(axes)
    _names(axes, [(title, _tint(network, titles)[0]) for network, title in titles.items()])


def _spectrum(rows: Rows, titles: dict[str, str], axes: Axes) -> None:
    lines: dict[str, tuple[list, list]] = {network: ([], []) for network in titles}
    for row in rows:
        if row["objective"] == "loss_at_label" and row["cycles_per_pixel"] <= 0.5:
            lines[row["network"]][0].append(row["cycles_per_pixel"])
            lines[row["network"]][1].append(100 * row["value"])
    _lines(axes, titles, lines)
    axes.set_xlabel("cycles per pixel")
    axes.set_xlim(0, 0.5)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:g} %")


def _norms(rows: Rows, titles: dict[str, str], axes: Axes) -> None:
    lines: dict[str, tuple[list, list]] = {network: ([], []) for network in titles}
    for row in rows:
        if row["objective"] == "loss_at_label":
            lines[row["network"]][0].append((row["log10_above"] + row["log10_below"]) / 2)
            lines[row["network"]][1].append(row["images"])
    _lines(axes, titles, lines, marker=".")
    axes.set_xlabel("L2 norm, powers of ten")
    axes.set_ylim(bottom=0)


def _exchanges(rows: Rows, axes: Axes) -> None:
    kinds = list(dict.fromkeys(row["indices"] for row in rows))
    tints = dict(zip(SAYS, (LIGHT[1], LIGHT[2], LIGHT[0]), strict=True))
    shares = {(row["indices"], row["says"]): 100 * row["value"] for row in rows if row["network"] == "s2snet"}
    below = [0.0] * len(kinds)
    for says, tint in tints.items():
        heights = [shares[kind, says] for kind in kinds]
        axes.bar(range(len(kinds)), heights, bottom=below, color=tint, width=0.62)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    percent_axis(axes)
    axes.set_xticks(range(len(kinds)), [kind.replace(" ", "\n") for kind in kinds], fontsize=8.5)
    _names(axes, [(SAYS[says], tints[says]) for says in reversed(SAYS)])
