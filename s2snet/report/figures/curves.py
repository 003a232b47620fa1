"""Draw accuracy over budget for one norm and one threat: a line per defence with its 95 % interval."""

from matplotlib.axes import Axes

from s2snet.evaluation.schema import CLEAN
from s2snet.report.formatting import title_of
from s2snet.report.palette import LIGHT, MARKERS, colour

MAX_LABEL = 24  # characters
GAP = 0.068  # minimum distance between two labels at the right edge, as a fraction of the axis


def room(titles: dict[str, str]) -> float:
    """Return the fraction of the width that the labels at the right edge need."""
    longest = max((len(shortened(title)) for title in titles.values()), default=0)
    return min(0.1 + 0.0125 * longest, 0.42)


def shortened(title: str) -> str:
    """Shorten a title to fit next to the axes; the page has the full one."""
    return title if len(title) <= MAX_LABEL else title[: MAX_LABEL - 1].rstrip() + "\u2026"


def draw(headlines: dict, axes: Axes, norm: str, threat: str, titles: dict[str, str], slot: dict[str, int]) -> None:
    """Draw the accuracies of `headlines` (from scores.headline) for one norm and threat, starting at the clean one.

    `titles` maps the defences, in order, to their labels, and `slot` to their places in the palette.
    """
    ends, radii = [], set()
    for name, title in titles.items():
        points = [(eps, line) for (d, t, n, eps), line in headlines.items() if (d, t, n) == (name, threat, norm)]
        clean = headlines.get((name, CLEAN, "", 0.0))
        if not points:
            continue
        radii |= {eps for eps, _ in points}
        measured = [(0.0, clean)] * (clean is not None) + sorted(points, key=lambda point: point[0])
        measured = [(eps, line) for eps, line in measured if line["accuracy"] is not None]
        if not measured:
            continue
        x = [eps for eps, _ in measured]
        y, low, high = ([100 * line[column] for _, line in measured] for column in ("accuracy", "low", "high"))
        tint, mark = LIGHT[colour(slot[name])], MARKERS[slot[name] % len(MARKERS)]
        axes.fill_between(x, low, high, color=tint, alpha=0.14, linewidth=0)
        axes.plot(x, y, color=tint, linewidth=1.6, marker=mark, markersize=4, clip_on=False, zorder=3)
        ends.append((y[-1], title, tint))
    frame(axes, norm, sorted(radii))
    label_ends(axes, ends)


def frame(axes: Axes, norm: str, radii: list[float]) -> None:
    """Set up the axes: percent, and ticks at the budgets, in 1/255 for Linf."""
    largest = max(radii, default=1.0)
    axes.set_xlim(0, largest)
    in_levels = norm == "linf" and largest < 0.5
    texts = [f"{eps * 255:.3g}" if in_levels else f"{eps:.3g}" for eps in radii]
    # Drop the number of a tick that would overlap its neighbour.
    shown, last = [], 0.0
    for eps, text in zip(radii, texts, strict=True):
        fits = eps == radii[0] or eps - last > 0.055 * largest
        shown.append(text if fits else "")
        last = eps if fits else last
    axes.set_xticks([0.0, *radii], ["0", *shown])
    axes.set_xlabel(f"{title_of(norm)} budget" + (" in 1/255" if in_levels else ""))
    percent_axis(axes)


def percent_axis(axes: Axes) -> None:
    """Set up the vertical axis for accuracy in percent, with a grid and only the bottom spine."""
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", length=3)
    axes.tick_params(axis="y", pad=7)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Label the lines at their right ends, moving labels that would overlap."""
    ends = sorted(ends, key=lambda end: end[0])
    places = [end[0] / 100 for end in ends]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + GAP)
    for i in reversed(range(len(places))):
        ceiling = 1.0 if i == len(places) - 1 else places[i + 1] - GAP
        places[i] = min(places[i], ceiling)
    for (_, title, tint), place in zip(ends, places, strict=True):
        # parse_math: a title may hold a dollar sign.
        axes.text(
            1.035,
            place,
            shortened(title),
            color=tint,
            va="center",
            transform=axes.transAxes,
            parse_math=False,
        )
