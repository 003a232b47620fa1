"""From rows to the table: accuracies with their intervals, worst cases, and what is missing from them.

Knows numpy and pyarrow, no torch: a result can be scored again on any machine.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from s2snet.evaluation.schema import CLEAN, TABLE_COLUMNS, WORST_CASE

LABEL = TABLE_COLUMNS[:6]  # what names a line: defence, threat, route, attack, norm, budget
NAMED_IN_STATUS = 3  # a status names so many missing parts and counts the others


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval (low, high) of a share of n. n = 0 is a ValueError: no images, no share."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share; successes must lie in 0..n and n must be 1 or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} does not lie between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = successes / n, 1 + z * z / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    # At 0 and n one end is exact; rounding must not move it.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


@dataclass
class Part:
    """One crafted cell before one judge: which of the selected images it has, and which of them are right."""

    name: str  # threat, route and attack, for the status of the worst case
    seen: np.ndarray | None = None  # bool over the selected images; None where the cell has no rows
    right: np.ndarray | None = None  # bool over the selected images; True where unseen
    failure: str | None = None  # why the cell is not done


def table(rows: pa.Table, cells: list[dict]) -> list[dict]:
    """The table's lines (dicts of TABLE_COLUMNS), sorted, the worst cases after what they are taken from.

    The selected images are all images that occur in `rows`. An accuracy is over the ones that a line has, and
    a line that lacks some says so in its status. There is a line for

    - each defence without an attack (threat CLEAN);
    - each (defence, threat, route, attack, norm, budget). Where several cells share these six, because they
      differ in source or options only (transfer; an attack twice), the line is their minimum per image;
    - each (defence, threat, norm, budget) of more than one cell, route and attack WORST_CASE;
    - each (defence, norm, budget), threat, route and attack WORST_CASE.

    A worst case is the minimum per image over the cells and the clean prediction, since an attacker may leave
    the image alone. Where a cell failed or lacks images, it is an upper bound, and incomplete. Images that a
    failed cell turned before it failed stay turned in the worst case.
    """
    selected = np.unique(rows["image"].to_numpy())
    labels = collect(rows, cells, selected)
    clean: dict[str, list[Part]] = {}
    worst: dict[tuple, list[Part]] = {}
    for (defence, threat, _, _, norm, budget), parts in labels.items():
        if threat == CLEAN:
            clean.setdefault(defence, []).extend(parts)
            continue
        worst.setdefault((defence, threat, WORST_CASE, WORST_CASE, norm, budget), []).extend(parts)
        worst.setdefault((defence, WORST_CASE, WORST_CASE, WORST_CASE, norm, budget), []).extend(parts)
    lines = [one_line(label, parts, selected) for label, parts in labels.items() if label[1] != CLEAN]
    for defence in {label[0] for label in labels}:
        clean.setdefault(defence, [Part(CLEAN, failure="no rows")])
        lines.append(one_line((defence, CLEAN, "", "", "", 0.0), clean[defence], selected))
    for label, parts in worst.items():
        if label[1] == WORST_CASE or len(parts) > 1:
            lines.append(one_line(label, clean[label[0]] + parts, selected))
    return sorted(lines, key=order)


def collect(rows: pa.Table, cells: list[dict], selected: np.ndarray) -> dict[tuple, list[Part]]:
    """{label: its parts, one per crafted key}, from the rows and from the cells that have none."""
    parts: dict[tuple, dict[str, Part]] = {}
    grouped = rows.group_by([*LABEL, "crafted"], use_threads=False).aggregate([("image", "list"), ("correct", "list")])
    names = [grouped[column].to_pylist() for column in (*LABEL, "crafted")]
    for i, (*names_of_label, crafted) in enumerate(zip(*names, strict=True)):
        label = label_of(dict(zip(LABEL, names_of_label, strict=True)))
        at = np.searchsorted(selected, grouped["image_list"][i].values.to_numpy())
        seen, right = np.zeros(len(selected), bool), np.ones(len(selected), bool)
        seen[at] = True
        np.logical_and.at(right, at, grouped["correct_list"][i].values.to_numpy(zero_copy_only=False))
        parts.setdefault(label, {})[crafted or ""] = Part(name_of(label), seen, right)
    for cell in cells:
        for judge in cell["judges"]:
            label = label_of({**cell, "defence": judge})
            part = parts.setdefault(label, {}).setdefault(cell["crafted"] or "", Part(name_of(label)))
            if cell["status"] != "done":
                part.failure = " ".join(str(cell.get("reason") or cell["status"]).split())
            elif part.seen is None:
                part.failure = "no rows"
    return {label: list(by_key.values()) for label, by_key in parts.items()}


def label_of(named: dict) -> tuple:
    """The six that name a line, as a tuple, with nothing in it that is None."""
    *names, budget = (named.get(column) for column in LABEL)
    return (*(name or "" for name in names), float(budget or 0.0))


def name_of(label: tuple) -> str:
    """Threat, route and attack as a status names them."""
    return " ".join(name for name in label[1:4] if name)


def one_line(label: tuple, parts: list[Part], selected: np.ndarray) -> dict:
    """The line of the minimum per image over `parts`."""
    line = dict(zip(LABEL, label, strict=True))
    failures = [part.failure for part in parts if part.failure]
    usable = [part for part in parts if part.seen is not None]
    seen = np.any([part.seen for part in usable], axis=0) if usable else np.zeros(len(selected), bool)
    n = int(seen.sum())
    if len(failures) == len(parts) or n == 0:
        status = "failed: " + listed(sorted(set(failures)) or ["no images"])
        return line | {"accuracy": None, "low": None, "high": None, "images": 0, "status": status}
    right = int((seen & np.all([part.right for part in usable], axis=0)).sum())
    low, high = wilson(right, n)
    missing = [f"{part.name} failed ({part.failure})" for part in parts if part.failure]
    for part in usable:
        lacking = len(selected) - int(part.seen.sum())
        if lacking and not part.failure:
            missing.append(f"{part.name} lacks {lacking} of {len(selected)} images")
    status = "incomplete: " + listed(sorted(set(missing))) if missing else "done"
    return line | {"accuracy": right / n, "low": low, "high": high, "images": n, "status": status}


def listed(reasons: list[str]) -> str:
    """The first few reasons, and how many more there are."""
    more = len(reasons) - NAMED_IN_STATUS
    return "; ".join(reasons[:NAMED_IN_STATUS]) + (f"; and {more} more" if more > 0 else "")


def order(line: dict) -> tuple:
    """The sort key of a line: defence, clean first, then norm and budget; each worst case after its parts."""
    last = tuple((line[column] == WORST_CASE, line[column]) for column in ("threat", "route", "attack"))
    return line["defence"], line["threat"] != CLEAN, line["norm"], line["budget"], *last


def headline(lines: list[dict]) -> dict[tuple[str, str, str, float], dict]:
    """{(defence, threat, norm, budget): the one line that speaks for that threat}.

    The threat is CLEAN (norm "", budget 0.0), WORST_CASE over everything, or any other that occurs; its line
    is its worst case or, where it has one cell only, that cell's.
    """
    speaking: dict[tuple[str, str, str, float], dict] = {}
    for line in lines:
        key = (line["defence"], line["threat"], line["norm"], line["budget"])
        if key not in speaking or line["attack"] == WORST_CASE:
            speaking[key] = line
    return speaking


def write_table(lines: list[dict], path: str | Path) -> None:
    """Writes table.csv: accuracies with six decimals, budgets as Python writes them, nothing where None."""
    shares = ("accuracy", "low", "high")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TABLE_COLUMNS)
        for line in lines:
            texts = {column: line[column] for column in TABLE_COLUMNS}
            texts["budget"] = repr(float(line["budget"]))
            texts |= {column: "" if line[column] is None else f"{line[column]:.6f}" for column in shares}
            writer.writerow(texts.values())


def read_table(path: str | Path) -> list[dict]:
    """The lines of a table.csv, with numbers as numbers and None where a share is empty."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        for column in ("accuracy", "low", "high"):
            line[column] = float(line[column]) if line[column] else None
        line["budget"], line["images"] = float(line["budget"]), int(line["images"])
    return lines
