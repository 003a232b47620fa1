"""Draw a run's losses and metrics over its epochs from its metrics.csv, a panel per quantity."""

import io
import math
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from s2snet.atomic_io import write_whole

CURVES = "curves.png"
ACROSS = 3  # panels in a row
TRAINING, VALIDATION = "#a5a29b", "#1b5e9b"
AXES = ("step", "epoch")


def write_curves(rows: list[dict[str, float]], path: Path) -> bool:
    """Draw the rows of `read_metrics` (loggers.py). Return False, and write no file, if they hold no curve."""
    panels = by_quantity(rows)
    if not panels:
        return False
    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(3.4 * across, 2.5 * down), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, place + 1)
        _draw(axes, name, curves)
        axes.set_xlabel("epoch" if place >= len(panels) - across else "")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    write_whole(path, file.getvalue())
    return True


def by_quantity(rows: list[dict[str, float]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return {quantity: {column: [(epochs done, value)]}}, with `loss` and `val_loss` in one quantity.

    Steps are placed within their epoch, which ends with its validation.
    """
    counted = [row for row in rows if all(axis in row for axis in AXES)]
    a_step = (counted[-1]["epoch"] + 1) / (counted[-1]["step"] + 1) if counted else 1.0  # in epochs
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in counted:
        for column, value in row.items():
            if column not in AXES:
                curve = panels.setdefault(column.removeprefix("val_"), {}).setdefault(column, [])
                curve.append(((row["step"] + 1) * a_step, value))
    return panels


def _draw(axes, name: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    for column, points in sorted(curves.items()):
        validation = column.startswith("val_")
        axes.plot(
            [at for at, _ in points],
            [value for _, value in points],
            color=VALIDATION if validation else TRAINING,
            linewidth=1.6 if validation else 1.0,
            marker="o" if validation else None,
            markersize=3,
            label="validation" if validation else "training",
        )
    values = [value for points in curves.values() for _, value in points]
    if name.endswith("loss") and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set_title(name.replace("_", " "), loc="left", fontsize=10)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", linewidth=0.4)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
