"""Compute the table from rows: accuracies with their intervals, worst cases, and what is missing from them.

Imports no torch: a result can be scored again on any machine. Rows are read a cell at a time, so a table of millions of
them takes a few bytes per image and line.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s2snet.evaluation.schema import CLEAN, LABEL, NAMING, SORT_ORDER, TABLE_COLUMNS, USUAL_BUDGET, WORST_CASE

NAMED_IN_STATUS = 3  # missing parts that a status names; it counts the others
EVERY_SEED = -1  # the seed of rows without random numbers
SHARES = ("accuracy", "low", "high", "success", "reached", "spread", "distance")  # numbers of a line, or None


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval (low, high) of a share of n; `successes` may be a mean over seeds.

    Raises ValueError for n = 0.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a share: expected n >= 1 and successes in 0..n")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a number between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = successes / n, 1 + z * z / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    # At 0 and n one end is exact; rounding must not change it.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


@dataclass
class Part:
    """One crafted cell before one judge: which of the selected images it has, and which of them are correct."""

    name: str  # threat, route and attack, for the status of the worst case
    seen: np.ndarray | None = None  # bool over the selected images; None if the cell has no rows
    right: np.ndarray | None = None  # bool over the selected images; True if unseen
    failure: str | None = None  # why the cell is not done
    seed: int = EVERY_SEED
    size: np.ndarray | None = (
        None  # over the selected images: the distance at which a minimal attack succeeds, else infinite
    )
    reached: np.ndarray | None = None  # bool over the selected images: a targeted attack succeeded


def groups(rows: pa.Table | str | Path) -> Iterator[tuple[dict, pa.Table]]:
    """Yield (naming, rows) of each cell before each judge, from a table or, streaming, from a rows.parquet."""
    if isinstance(rows, pa.Table):
        batches = rows.sort_by([(column, "ascending") for column in SORT_ORDER]).to_batches()
    else:
        batches = pq.ParquetFile(rows).iter_batches(batch_size=1 << 13)
    held: list[pa.Table] = []
    before: dict | None = None
    for batch in batches:
        part = pa.Table.from_batches([batch])
        for start, stop in _runs(part.select([name for name, _ in NAMING])):
            naming = part.slice(start, 1).select([name for name, _ in NAMING]).to_pylist()[0]
            if naming != before and held:
                yield before, pa.concat_tables(held)
                held = []
            held.append(part.slice(start, stop - start))
            before = naming
    if held:
        yield before, pa.concat_tables(held)


def _runs(names: pa.Table) -> list[tuple[int, int]]:
    """Return the (start, stop) of each run of rows in which no column changes."""
    changed = np.zeros(len(names), bool)
    changed[:1] = True
    for column in names.itercolumns():
        codes = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        changed[1:] |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(changed).tolist()
    return list(zip(starts, [*starts[1:], len(names)], strict=True))


class Scores:
    """The parts of every line, over the selected images: all images that occur in the rows.

    `cells` are the cells in run.json; `budgets` the radii of each norm, at which a minimal attack is scored: an image
    is correct if the attack fools the defence only at a larger distance, or not at all.
    """

    def __init__(self, rows: pa.Table | str | Path, cells: list[dict], budgets: dict[str, list[float]] | None = None):
        self.budgets = budgets or {}
        self.selected, self.labels = _selection(rows)
        self.parts: dict[tuple, dict[str, Part]] = {}  # {label: {crafted key: part}}
        for naming, group in groups(rows):
            self._add(naming, group)
        self._missing(cells)
        seeds = {part.seed for parts in self.parts.values() for part in parts.values()}
        self.seeds = sorted(seeds - {EVERY_SEED}) or [EVERY_SEED]

    def _add(self, naming: dict, group: pa.Table) -> None:
        at = np.searchsorted(self.selected, group["image"].to_numpy())
        seen, right = np.zeros(len(self.selected), bool), np.ones(len(self.selected), bool)
        seen[at] = True
        correct = group["correct"].to_numpy()
        np.logical_and.at(right, at, correct)
        size, reached = np.full(len(self.selected), np.inf), None
        if math.isinf(naming["budget"]):
            fooled_at = np.where(correct, np.inf, group[naming["norm"]].to_numpy())
            np.minimum.at(size, at, fooled_at)
        target = group["target"].fill_null(-1).to_numpy()
        if (target >= 0).any():
            reached = np.zeros(len(self.selected), bool)
            reached[at] = group["prediction"].to_numpy() == target
        for label, eps in self._lines(naming):
            within = right | (size > eps) if math.isinf(naming["budget"]) else right
            key = naming["crafted"] or f"seed {naming['seed']}"
            part = Part(name_of(label), seen, within, None, naming["seed"], size, reached)
            self.parts.setdefault(label, {})[key] = part

    def _lines(self, naming: dict) -> list[tuple[tuple, float]]:
        """Return (label, radius) of each line that a cell is part of: for a minimal attack one per budget."""
        label = label_of(naming)
        if not math.isinf(label[-1]):
            return [(label, label[-1])]
        return [((*label[:-1], eps), eps) for eps in [*self.budgets.get(label[-2], []), math.inf]]

    def _missing(self, cells: list[dict]) -> None:
        """Mark cells that failed, and add those without rows."""
        for cell in cells:
            for judge in cell["judges"]:
                naming = {**cell, "defence": judge}
                if "budget" in cell and cell["budget"] is None:
                    naming["budget"] = math.inf
                for label, _ in self._lines(naming):
                    seed = EVERY_SEED if cell.get("seed") is None else cell["seed"]
                    parts = self.parts.setdefault(label, {})
                    part = parts.setdefault(cell["crafted"] or f"seed {seed}", Part(name_of(label), seed=seed))
                    if cell["status"] != "done":
                        part.failure = " ".join(str(cell.get("reason") or cell["status"]).split())
                    elif part.seen is None:
                        part.failure = "no rows"

    def table(self) -> list[dict]:
        """Return the table's lines (dicts of TABLE_COLUMNS), sorted, the worst cases after their parts.

        An accuracy is over the images that a line has; if some are missing, its status names them. There is a line for

        - each defence without an attack (threat CLEAN);
        - each (defence, threat, route, attack, norm, budget). If several cells share these six, because they differ
          only in source or options (transfer; an attack twice), the line is their minimum per image;
        - each minimal attack likewise, at each budget of its norm and without one (budget infinite);
        - each (defence, threat, route, norm, budget), attack WORST_CASE, if the threat has several routes: the result
          of that route alone;
        - each (defence, threat, norm, budget) of more than one cell, route and attack WORST_CASE;
        - each (defence, norm, budget), threat, route and attack WORST_CASE.

        A worst case is the minimum per image over the cells and the clean prediction, since an attacker may leave the
        image unchanged. If a cell failed or lacks images, the worst case is an upper bound and marked incomplete;
        images that the cell fooled before it failed still count. With several seeds each line is computed per seed,
        and its accuracy is the mean.
        """
        labels, worst = self._gathered()
        clean = {label[0]: parts for label, parts in labels.items() if label[1] == CLEAN}
        for defence in {label[0] for label in labels} - clean.keys():
            clean[defence] = labels[defence, CLEAN, "", "", "", 0.0] = [Part(CLEAN, failure="no rows")]
        lines = [self._line(label, parts, clean[label[0]]) for label, parts in labels.items()]
        lines += [self._line(label, clean[label[0]] + parts, clean[label[0]]) for label, parts in worst.items()]
        return sorted(lines, key=order)

    def worst_cases(self) -> dict[tuple, np.ndarray]:
        """Return {label: share of seeds for which each selected image is correct}, for clean lines and worst cases."""
        labels, worst = self._gathered()
        clean = {label[0]: parts for label, parts in labels.items() if label[1] == CLEAN}
        cases = {label: parts for label, parts in labels.items() if label[1] == CLEAN}
        cases |= {label: clean.get(label[0], []) + parts for label, parts in worst.items()}
        usable = {label: [part for part in parts if part.seen is not None] for label, parts in cases.items()}
        return {
            label: np.mean([np.all([p.right for p in self._of(parts, seed)], axis=0) for seed in self.seeds], axis=0)
            for label, parts in usable.items()
            if parts
        }

    def _gathered(self) -> tuple[dict[tuple, list[Part]], dict[tuple, list[Part]]]:
        """Return (each label's parts, each worst case's parts without the clean ones)."""
        labels: dict[tuple, list[Part]] = {}
        worst: dict[tuple, list[Part]] = {}
        routes = Counter((defence, threat) for defence, threat, _ in {label[:3] for label in self.parts})
        for label, by_key in self.parts.items():
            parts = list(by_key.values())
            defence, threat, route, _, norm, budget = label
            if threat == CLEAN:
                labels.setdefault((defence, CLEAN, "", "", "", 0.0), []).extend(parts)
                continue
            labels[label] = parts
            if math.isfinite(budget):
                if routes[defence, threat] > 1:
                    worst.setdefault((defence, threat, route, WORST_CASE, norm, budget), []).extend(parts)
                worst.setdefault((defence, threat, WORST_CASE, WORST_CASE, norm, budget), []).extend(parts)
                worst.setdefault((defence, WORST_CASE, WORST_CASE, WORST_CASE, norm, budget), []).extend(parts)
        several = {
            label: parts
            for label, parts in worst.items()
            if label[1] == WORST_CASE or max(len(self._of(parts, seed)) for seed in self.seeds) > 1
        }
        return labels, several

    def _of(self, parts: list[Part], seed: int) -> list[Part]:
        return [part for part in parts if part.seed in (seed, EVERY_SEED)]

    def _line(self, label: tuple, parts: list[Part], clean: list[Part]) -> dict:
        """Return the line of the minimum per image over `parts`, averaged over the seeds."""
        line = dict.fromkeys(TABLE_COLUMNS) | dict(zip(LABEL, label, strict=True))
        by_seed = [self._of(parts, seed) for seed in self.seeds]
        if all(part.seed == EVERY_SEED for part in parts):
            by_seed = by_seed[:1]  # no random numbers here
        outcomes = [self._outcome(chosen) for chosen in by_seed]
        failed = next((outcome for outcome in outcomes if outcome["n"] == 0), None)
        if failed is not None:
            return line | {"images": 0, "seeds": len(by_seed), "status": failed["status"]}
        n = min(outcome["n"] for outcome in outcomes)
        shares = [outcome["right"].sum() / outcome["n"] for outcome in outcomes]
        accuracy = float(np.mean(shares))
        low, high = wilson(accuracy * n, n)
        line |= {"accuracy": accuracy, "low": low, "high": high, "images": n, "seeds": len(by_seed)}
        line["spread"] = float(max(shares) - min(shares)) if len(shares) > 1 else None
        line["status"] = next((o["status"] for o in outcomes if o["status"] != "done"), "done")
        if label[1] != CLEAN:
            fooled, base, sizes = [], [], []
            for seed, outcome in zip(self.seeds, outcomes, strict=False):
                unattacked = self._outcome(self._of(clean, seed))
                clean_correct = unattacked["seen"] & outcome["seen"] & unattacked["right"]
                base.append(int(clean_correct.sum()))
                fooled.append(float((clean_correct & ~outcome["right"]).sum() / max(clean_correct.sum(), 1)))
                sizes.append(_median(outcome["size"][clean_correct]))
            line["clean_correct"] = min(base)
            line["success"] = float(np.mean(fooled)) if min(base) else None
            if math.isinf(label[-1]):
                line["distance"] = float(np.mean(sizes)) if min(base) else None
        reached = [outcome["reached"] for outcome in outcomes if outcome["reached"] is not None]
        line["reached"] = float(np.mean([images.sum() / n for images in reached])) if reached else None
        return line

    def _outcome(self, parts: list[Part]) -> dict:
        """Return, for one seed, the images seen and those correct in all parts, and a status of missing parts."""
        failures = [part.failure for part in parts if part.failure]
        usable = [part for part in parts if part.seen is not None]
        nothing = np.zeros(len(self.selected), bool)
        seen = np.any([part.seen for part in usable], axis=0) if usable else nothing
        n = int(seen.sum())
        if len(failures) == len(parts) or n == 0:
            status = "failed: " + listed(sorted(set(failures)) or ["no images"])
            return {"n": 0, "status": status, "seen": nothing, "right": nothing, "size": nothing, "reached": None}
        missing = [f"{part.name} failed ({part.failure})" for part in parts if part.failure]
        for part in usable:
            lacking = len(self.selected) - int(part.seen.sum())
            if lacking and not part.failure:
                missing.append(f"{part.name} lacks {lacking} of {len(self.selected)} images")
        reached = [part.reached for part in usable if part.reached is not None]
        sizes = [part.size for part in usable if part.size is not None]
        return {
            "n": n,
            "status": "incomplete: " + listed(sorted(set(missing))) if missing else "done",
            "seen": seen,
            "right": seen & np.all([part.right for part in usable], axis=0),
            "size": np.min(sizes, axis=0) if sizes else np.full(len(self.selected), np.inf),
            "reached": np.any(reached, axis=0) if reached else None,
        }


def table(rows: pa.Table | str | Path, cells: list[dict], budgets: dict[str, list[float]] | None = None) -> list[dict]:
    """Return the table's lines (see Scores.table)."""
    return Scores(rows, cells, budgets).table()


def _selection(rows: pa.Table | str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (the images that occur in the rows, ascending, and their labels)."""
    images, labels = np.empty(0, np.int64), np.empty(0, np.int32)
    for _, group in groups(rows):
        of_group = group["image"].to_numpy()
        if len(of_group) == len(images) and np.array_equal(of_group, images):
            continue  # the usual case: every cell has all images
        everything = np.concatenate([images, of_group])
        images, first = np.unique(everything, return_index=True)
        labels = np.concatenate([labels, group["label"].to_numpy()])[first]
    return images, labels


def _median(values: np.ndarray) -> float:
    """Return the upper median: infinite if half or more of the values are."""
    return float(np.sort(values)[len(values) // 2]) if len(values) else math.nan


def label_of(named: dict) -> tuple:
    """Return the six values that identify a line as a tuple without None."""
    *names, budget = (named.get(column) for column in LABEL)
    return (*(name or "" for name in names), float(budget or 0.0))


def name_of(label: tuple) -> str:
    """Return threat, route and attack as they appear in a status."""
    return " ".join(name for name in label[1:4] if name and name != "none")


def listed(reasons: list[str]) -> str:
    """Join the first few reasons and the number of others."""
    more = len(reasons) - NAMED_IN_STATUS
    return "; ".join(reasons[:NAMED_IN_STATUS]) + (f"; and {more} more" if more > 0 else "")


def order(line: dict) -> tuple:
    """Return the sort key of a line: defence, clean first, then norm and budget; each worst case after its parts."""
    last = tuple((line[column] == WORST_CASE, line[column]) for column in ("threat", "route", "attack"))
    return line["defence"], line["threat"] != CLEAN, line["norm"], line["budget"], *last


def headline(lines: list[dict]) -> dict[tuple[str, str, str, float], dict]:
    """Return {(defence, threat, norm, budget): the line that summarises the threat}.

    The threat is CLEAN (norm "", budget 0.0), WORST_CASE over everything, or any other that occurs. Its line is its
    worst case or, if it has only one cell, that of the cell. Minimal attacks without a budget are left out.
    """
    headline_rows: dict[tuple[str, str, str, float], dict] = {}
    for line in lines:
        key = (line["defence"], line["threat"], line["norm"], line["budget"])
        if math.isfinite(line["budget"]) and (key not in headline_rows or line["route"] == WORST_CASE):
            headline_rows[key] = line
    return headline_rows


def headline_budget(budgets: Iterable[tuple[str, float]]) -> tuple[str, float] | None:
    """Return the (norm, radius) that page, audit and probes report first: linf 8/255 if it is one of the budgets.

    Otherwise the middle radius of linf, or of the alphabetically first norm if there is no linf. Radii of 0 and without
    a limit do not count; None if no other is left.
    """
    by_norm: dict[str, set[float]] = {}
    for norm, eps in budgets:
        if 0 < eps < math.inf:
            by_norm.setdefault(norm, set()).add(eps)
    for eps in by_norm.get("linf", ()):
        if math.isclose(eps, USUAL_BUDGET, rel_tol=1e-6):
            return "linf", eps
    if not by_norm:
        return None
    norm = "linf" if "linf" in by_norm else min(by_norm)
    radii = sorted(by_norm[norm])
    return norm, radii[len(radii) // 2]


def write_table(lines: list[dict], path: str | Path) -> None:
    """Write table.csv: shares and distances with six decimals, budgets as Python prints them, None as nothing."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TABLE_COLUMNS)
        for line in lines:
            texts = {column: "" if line[column] is None else line[column] for column in TABLE_COLUMNS}
            texts["budget"] = repr(float(line["budget"]))
            texts |= {column: "" if line[column] is None else f"{line[column]:.6f}" for column in SHARES}
            writer.writerow(texts.values())


def read_table(path: str | Path) -> list[dict]:
    """Return the lines of a table.csv, with numbers parsed and empty fields as None."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        for column in SHARES:
            line[column] = float(line[column]) if line[column] else None
        for column in ("images", "seeds", "clean_correct"):
            line[column] = int(line[column]) if line[column] else None
        line["budget"] = float(line["budget"])
    return lines
