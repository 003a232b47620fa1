"""What an audit reads of one evaluation: run.json, the rows, the table and the probes. No model is needed."""

import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from s2snet.checks.finding import NOT_APPLICABLE, Answer
from s2snet.evaluation.schema import CLEAN, USUAL_BUDGET, WORST_CASE
from s2snet.evaluation.scores import Scores, groups, headline, read_table


@dataclass
class Rows:
    """One crafted cell before one judge, as arrays over its images."""

    naming: dict[str, Any]
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    distance: np.ndarray  # in the cell's norm; 0 for clean images
    forwards: np.ndarray
    backwards: np.ndarray


@dataclass
class Record:
    """One result folder. `probes` is what evaluation/probes.py measured, {} where nothing was."""

    folder: Path
    run: dict[str, Any] = field(init=False)
    table: list[dict[str, Any]] = field(init=False)
    probes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        try:
            self.run = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            self.table = read_table(self.folder / "table.csv")
        except FileNotFoundError as error:
            raise ValueError(f"{self.folder}: no finished evaluation there (no {Path(error.filename).name})") from None
        if not (self.folder / "rows.parquet").is_file():
            raise ValueError(f"{self.folder}: no rows.parquet there, and an audit reads the rows of images")
        path = self.folder / "probes.json"
        self.probes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def defences(self) -> list[dict[str, Any]]:
        return self.run["defences"]

    @cached_property
    def scores(self) -> Scores:
        return Scores(self.folder / "rows.parquet", self.run["cells"], self.run["budgets"])

    @cached_property
    def speaking(self) -> dict:
        return headline(self.table)

    @cached_property
    def rows(self) -> list[Rows]:
        """Every cell before every judge, once, whatever threats it serves."""
        found: dict[tuple, Rows] = {}
        for naming, group in groups(self.folder / "rows.parquet"):
            key = (naming["crafted"], naming["defence"], naming["seed"])
            if key in found:
                continue
            columns = ("image", "label", "prediction", "correct", "forwards", "backwards")
            arrays = {name: group[name].to_numpy() for name in columns}
            norm = naming["norm"]
            distance = group[norm].to_numpy() if norm else np.zeros(len(group))
            found[key] = Rows(naming, distance=distance, **arrays)
        return list(found.values())

    @cached_property
    def cells(self) -> dict[str, dict[str, Any]]:
        """run.json's cells by key; of one that serves several threats the first."""
        found: dict[str, dict[str, Any]] = {}
        for cell in self.run["cells"]:
            found.setdefault(cell["crafted"], cell)
        return found

    def probe(self, defence: str, name: str) -> dict[str, Any] | None:
        """What that probe measured of a defence; None where it did not run. May be {"error": text}."""
        return self.probes.get("defences", {}).get(defence, {}).get(name)

    def budgets(self, defence: str) -> list[tuple[str, float]]:
        """(norm, radius) of each worst case of a defence."""
        return sorted(
            {(norm, eps) for d, threat, norm, eps in self.speaking if d == defence and threat == WORST_CASE and eps > 0}
        )

    def turned(self, defence: str, norm: str, eps: float, keep: Callable[[str, str, str], bool]) -> np.ndarray | None:
        """Bool over the selected images: turned by any cell whose label (threat, route, attack) `keep` accepts.

        None where no such cell has rows.
        """
        fell = None
        for label, parts in self.scores.parts.items():
            if label[0] != defence or label[1] == CLEAN or label[4:] != (norm, eps) or not keep(*label[1:4]):
                continue
            for part in parts.values():
                if part.seen is not None:
                    fell = (part.seen & ~part.right) if fell is None else fell | (part.seen & ~part.right)
        return fell

    def clean_right(self, defence: str) -> np.ndarray:
        """Bool over the selected images: right without an attack, in every seed."""
        right = np.ones(len(self.scores.selected), bool)
        for label, parts in self.scores.parts.items():
            if label[0] == defence and label[1] == CLEAN:
                for part in parts.values():
                    right &= part.right
        return right

    @staticmethod
    def reference(budgets: list[tuple[str, float]]) -> tuple[str, float] | None:
        """The budget at which things are said: linf 8/255 where there, else the smallest."""
        for norm, eps in budgets:
            if norm == "linf" and math.isclose(eps, USUAL_BUDGET, rel_tol=1e-6):
                return norm, eps
        return budgets[0] if budgets else None


def probed(name: str) -> Callable:
    """Makes a check of what one probe measured of one defence into a check of a record.

    The check gets (record, defence, what was measured). Where the probe did not run nothing is said; one that raised
    is said to be not applicable, with the error.
    """

    def wrap(check: Callable[["Record", dict, dict], Iterator[Answer]]) -> Callable[["Record"], Iterator[Answer]]:
        @functools.wraps(check)
        def over_defences(record: Record) -> Iterator[Answer]:
            for defence in record.defences:
                found = record.probe(defence["name"], name)
                if found is not None and "error" in found:
                    yield Answer(defence["name"], NOT_APPLICABLE, f"not measured: {found['error']}")
                elif found is not None:
                    yield from check(record, defence, found)

        return over_defences

    return wrap
