"""Compute what a table of accuracies leaves out: measures.csv, and accuracy over distance (curves.csv).

Imports no torch. Reads rows a cell at a time.
"""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa

from s2snet.evaluation.schema import CLEAN, CURVE_COLUMNS, CURVE_DISTANCES, MEASURE_COLUMNS, WORST_CASE
from s2snet.evaluation.scores import Scores, groups, headline, label_of

UNDEFENDED = "none"
POINTS = 64  # of a curve, at quantiles of the distances


def measures(scores: Scores, rows: pa.Table | str | Path, classes: list[str]) -> list[dict]:
    """Return the lines of measures.csv (dicts of MEASURE_COLUMNS), in the order of the rows, accuracies per class last.

    If several cells share a label, the value is the mean over their images.
    """
    sums: dict[tuple, list[np.ndarray]] = {}
    counted: dict[tuple, tuple[int, int]] = {}
    clean_correct: dict[str, np.ndarray] = {}  # of each defence: the images that are correct without an attack
    for naming, group in groups(rows):
        label = label_of(naming)
        if label[1] == CLEAN:
            label = (label[0], CLEAN, "", "", "", 0.0)
            clean_correct[label[0]] = group["image"].to_numpy()[group["correct"].to_numpy()]
            columns = ("psnr", "ssim", "purified_pixel")
        else:
            columns = ("linf", "l2_normalised", "l2_standardised", "purified_pixel", "purified_signal")
        for name in columns:
            values = group[name].drop_null().to_numpy()
            if len(values) and not (name.startswith("purified") and not values.any()):
                sums.setdefault((label, name), []).append(values)
        if label[1] == "foreign":
            changed = int((group["l2"].to_numpy() > 0).sum())
            counted[label] = max(changed, counted.get(label, 0)), len(group)
        if label[1] != CLEAN:
            images, wrong = group["image"].to_numpy(), ~group["correct"].to_numpy()
            fooled = wrong & np.isin(images, clean_correct.get(label[0], []))
            values = group["l2_normalised"].to_numpy()[fooled]
            if len(values):
                sums.setdefault((label, "l2_normalised_turned"), []).append(values)
    lines = []
    for (label, name), parts in sums.items():
        values = np.concatenate(parts)
        value = np.median(values) if name.startswith("purified") else np.mean(values)
        lines.append(_line(label, name, "", float(value), len(values)))
    lines += [_line(label, "changed", "", float(changed), n) for label, (changed, n) in counted.items()]
    return lines + _clean_costs(scores) + _per_class(scores, classes)


def _clean_costs(scores: Scores) -> list[dict]:
    headline_rows = headline(scores.table())
    bare = headline_rows.get((UNDEFENDED, CLEAN, "", 0.0))
    if bare is None or bare["accuracy"] is None:
        return []
    return [
        _line((defence, CLEAN, "", "", "", 0.0), "clean_cost", "", bare["accuracy"] - line["accuracy"], line["images"])
        for (defence, threat, _, _), line in headline_rows.items()
        if threat == CLEAN and defence != UNDEFENDED and line["accuracy"] is not None
    ]


def _per_class(scores: Scores, classes: list[str]) -> list[dict]:
    lines = []
    for label, right in sorted(scores.worst_cases().items()):
        for number, name in enumerate(classes):
            of_class = scores.labels == number
            if of_class.any():
                lines.append(_line(label, "accuracy", name, float(right[of_class].mean()), int(of_class.sum())))
    return lines


def _line(label: tuple, measure: str, kind: str, value: float, images: int) -> dict:
    return dict(zip(MEASURE_COLUMNS, (*label, measure, kind, value, images), strict=True))


def curves(scores: Scores, rows: pa.Table | str | Path) -> list[dict]:
    """Return the lines of curves.csv (dicts of CURVE_COLUMNS): accuracy against each distance, per threat and over all.

    An image is correct at a distance if no perturbation of that size or less, of any cell and seed, fools the defence;
    one that is wrong without an attack is wrong at 0. Between budgets that were run the curve is an upper bound.
    """
    nearest: dict[tuple[str, str, str], np.ndarray] = {}
    for naming, group in groups(rows):
        at = np.searchsorted(scores.selected, group["image"].to_numpy())
        correct = group["correct"].to_numpy()
        for distance in CURVE_DISTANCES:
            if group[distance].null_count:
                continue
            fooled_at = np.where(correct, np.inf, group[distance].to_numpy())
            for threat in (naming["threat"], WORST_CASE):
                key = (naming["defence"], threat, distance)
                np.minimum.at(nearest.setdefault(key, np.full(len(scores.selected), np.inf)), at, fooled_at)
    lines = []
    for (defence, threat, distance), sizes in sorted(nearest.items()):
        if threat == CLEAN:
            continue
        clean = nearest.get((defence, CLEAN, distance))
        sizes = sizes if clean is None else np.minimum(sizes, clean)
        finite = np.sort(sizes[np.isfinite(sizes)])
        places = np.unique(np.linspace(0, len(finite) - 1, min(POINTS, len(finite))).astype(int)) if len(finite) else []
        for at in np.unique(np.concatenate([[0.0], finite[places]])):
            accuracy = float((sizes > at).mean())
            values = (defence, threat, distance, float(at), accuracy, len(sizes))
            lines.append(dict(zip(CURVE_COLUMNS, values, strict=True)))
    return lines


def write(lines: list[dict], columns: tuple[str, ...], path: str | Path) -> None:
    """Write a CSV with these columns: floats with six significant digits, budgets as Python prints them."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for line in lines:
            writer.writerow(_text(column, line[column]) for column in columns)


def _text(column: str, value) -> str:
    if column == "budget":
        return repr(float(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
