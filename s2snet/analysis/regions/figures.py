"""Figures of study=regions: overlap, where the perturbation is, accuracy without each part, the attackers."""

from typing import Any

from matplotlib.axes import Axes

from s2snet.report.figures.curves import label_ends, percent_axis
from s2snet.report.palette import LIGHT
from s2snet.report.studies.figure import Figure

TITLE = "Where it looks, where attacks go"
QUESTION = (
    "Do attacks alter the pixels that a classifier looks at? If they also alter pixels it does not look at, does it "
    "help to remove these, against an attacker who does not know of it and against one who does? After arXiv "
    "2011.10794, by definitions of our own: B is critical to both, I to the classifier, V to the attack, N to neither."
)
COLOUR_OF = {"V": 3, "I": 1, "B": 4, "N": 5, "random": 0, "shifted": 6}  # part or control: index of its colour
CONTROLS = {"random": "random pixels", "shifted": "V moved"}
MODES = {"static": "one mask for all", "per_class": "a mask per class", "per_input": "a mask per image"}
ATTACKERS = {
    "gray_box": "gray box",
    "fixed": "fixed",
    "recomputed": "recomputed",
    "bpda": "BPDA",
    "soft": "softened",
    "confined": "confined",
    "worst_case": "worst case",
}

Rows = list[dict[str, Any]]


def figures(tables: dict[str, Rows]) -> list[Figure]:
    """Return all figures."""
    drawn = [
        Figure(
            "overlap",
            "Overlap of the regions",
            lambda axes: _overlap(tables["overlap"], axes),
            "Intersection over union of the region of importance and the oracle region of attack, over the share of "
            "pixels in each, with 95 % intervals. Random: a mask of equal area.",
            right=0.27,
        ),
        Figure(
            "energy",
            "Where the perturbation is",
            lambda axes: _energy(tables["energy"], axes),
            "Share of the squared L2 perturbation in each part; the parts are found without an attack. Bars show their "
            "areas.",
        ),
    ]
    for mode, words in MODES.items():
        drawn.append(
            Figure(
                f"without-{mode}",
                f"Accuracy without a part: {words}",
                lambda axes, mode=mode: _without(tables["neutralising"], mode, axes),
                "Lines: gray box accuracy over the share q of pixels in each region. Crosses: clean accuracy.",
                right=0.27,
            )
        )
    drawn.append(
        Figure(
            "attackers",
            "Accuracy under attackers who know of it",
            lambda axes: _attackers(tables["adaptive"], axes),
            "Accuracy with V removed, judged by the defence itself, with 95 % intervals; the band is the undefended "
            "classifier. The mask is fixed at the clean image, recomputed at every step, skipped in the gradient "
            "(BPDA) or softened; the confined attacker changes no pixel in V. Attackers that coincide for a mask are "
            "left out.",
            width=11.0,
            height=3.2,
            right=0.2,
        )
    )
    return drawn


def _overlap(rows: Rows, axes: Axes) -> None:
    rows = [row for row in rows if row["main"]]
    ends = []
    for control, name, tint in (
        (None, "the image's own", LIGHT[3]),
        ("other image", "another image's", LIGHT[1]),
        ("random", "random", LIGHT[0]),
    ):
        line = sorted((row for row in rows if row["control"] == control), key=lambda row: row["q"])
        if line:
            _line(axes, line, "", tint)
            ends.append((100 * line[-1]["value"], name, tint))
    percent_axis(axes)
    axes.set_xlabel("share of pixels in each region")
    label_ends(axes, ends)


def _energy(rows: Rows, axes: Axes) -> None:
    rows = [row for row in rows if row["attack_map"] == "agnostic" and row["main"]]
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    for place, part in enumerate("BIVN"):
        of_part = [row for row in rows if row["part"] == part]
        axes.bar(place, 100 * of_part[0]["area"], width=0.7, color=LIGHT[0], alpha=0.25)
        for row in of_part:
            x = place + 0.22 * (attacks.index(row["attack"]) - (len(attacks) - 1) / 2)
            _point(axes, x, row, "", LIGHT[COLOUR_OF[part]], "os^v"[attacks.index(row["attack"])])
    percent_axis(axes)
    axes.set_xticks(range(4), list("BIVN"))
    marks = ", ".join(f"{name} {mark}" for name, mark in zip(attacks, ("circle", "square", "up", "down"), strict=False))
    axes.set_xlabel(f"q = {rows[0]['q']:g}; {marks}")


def _without(rows: Rows, mode: str, axes: Axes) -> None:
    main = [row for row in rows if row["mode"] == mode and row["main"]]
    ends = []
    (plain,) = [row for row in rows if row["part"] == "nothing"]
    axes.axhline(100 * plain["gray_box_value"], color=LIGHT[0], linewidth=1, linestyle=":")
    for part, slot in COLOUR_OF.items():
        line = sorted((row for row in main if row["part"] == part), key=lambda row: row["q"])
        if line:
            _line(axes, line, "gray_box_", LIGHT[slot], dashed=part in CONTROLS)
            axes.plot([row["q"] for row in line], [100 * row["clean_value"] for row in line], "x", color=LIGHT[slot],
                      markersize=4)  # fmt: skip
            ends.append((100 * line[-1]["gray_box_value"], CONTROLS.get(part, part), LIGHT[slot]))
    percent_axis(axes)
    axes.set_xlabel("share q of pixels in each region")
    label_ends(axes, ends)


def _attackers(rows: Rows, axes: Axes) -> None:
    (bare,) = [row for row in rows if row["mode"] == "undefended" and row["attacker"] == "worst_case"]
    axes.axhspan(100 * bare["low"], 100 * bare["high"], color=LIGHT[0], alpha=0.18, linewidth=0)
    chosen = [row for row in rows if row["main"] and row["part"] == "V"]
    ends = [(100 * bare["value"], "undefended", LIGHT[0])]
    for place, (mode, words) in enumerate(MODES.items()):
        by_attacker = {row["attacker"]: row for row in chosen if row["mode"] == mode}
        tint, mark = LIGHT[1 + place], "osD"[place]
        for x, attacker in enumerate(ATTACKERS):
            if attacker in by_attacker:
                _point(axes, x + 0.18 * (place - 1), by_attacker[attacker], "", tint, mark)
        ends.append((100 * by_attacker["gray_box"]["value"], words, tint))
    percent_axis(axes)
    axes.set_xlim(-0.5, len(ATTACKERS) - 0.5)
    axes.set_xticks(range(len(ATTACKERS)), list(ATTACKERS.values()))
    label_ends(axes, ends)


def _line(axes: Axes, rows: Rows, prefix: str, tint: str, dashed: bool = False) -> None:
    x = [row["q"] for row in rows]
    value, low, high = ([100 * row[f"{prefix}{column}"] for row in rows] for column in ("value", "low", "high"))
    axes.fill_between(x, low, high, color=tint, alpha=0.12, linewidth=0)
    axes.plot(x, value, color=tint, linewidth=1.6, linestyle="--" if dashed else "-", marker="o", markersize=3.5)


def _point(axes: Axes, x: float, row: dict[str, Any], prefix: str, tint: str, mark: str) -> None:
    value, low, high = (100 * row[f"{prefix}{column}"] for column in ("value", "low", "high"))
    axes.plot([x, x], [low, high], color=tint, linewidth=1.2)
    axes.plot([x], [value], marker=mark, color=tint, markersize=5, linestyle="none")
