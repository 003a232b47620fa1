"""The record of one evaluation that checks read: run.json, the rows, the table and the probes. Needs no model."""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from s2snet.audit.checks.finding import NOT_APPLICABLE, Answer
from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import Scores, groups, headline, read_table


@dataclass
class Rows:
    """The rows of one crafted cell and one judge, as arrays over its images."""

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
    """One result folder. `probes` is the content of probes.json, {} if nothing was measured."""

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
            raise ValueError(f"{self.folder}: no rows.parquet there; an audit reads the rows of every image")
        path = self.folder / "probes.json"
        self.probes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def defences(self) -> list[dict[str, Any]]:
        return self.run["defences"]

    @cached_property
    def scores(self) -> Scores:
        return Scores(self.folder / "rows.parquet", self.run["cells"], self.run["budgets"])

    @cached_property
    def headline(self) -> dict[tuple[str, str, str, float], dict]:
        """{(defence, threat, norm, budget): the line of the table that reports it}."""
        return headline(self.table)

    @cached_property
    def rows(self) -> list[Rows]:
        """Every pair of cell and judge once, even if the cell serves several threats."""
        by_cell: dict[tuple, Rows] = {}
        for naming, group in groups(self.folder / "rows.parquet"):
            key = (naming["crafted"], naming["defence"], naming["seed"])
            if key in by_cell:
                continue
            columns = ("image", "label", "prediction", "correct", "forwards", "backwards")
            arrays = {name: group[name].to_numpy() for name in columns}
            norm = naming["norm"]
            distance = group[norm].to_numpy() if norm else np.zeros(len(group))
            by_cell[key] = Rows(naming, distance=distance, **arrays)
        return list(by_cell.values())

    @cached_property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The cells of run.json by key; the first entry of a cell that serves several threats."""
        by_key: dict[str, dict[str, Any]] = {}
        for cell in self.run["cells"]:
            by_key.setdefault(cell["crafted"], cell)
        return by_key

    def probe(self, defence: str, name: str) -> dict[str, Any] | None:
        """Return the measurements of one probe of a defence, None if it did not run. May be {"error": text}."""
        return self.probes.get("defences", {}).get(defence, {}).get(name)

    def budgets(self, defence: str) -> list[tuple[str, float]]:
        """Return (norm, radius) of each worst case of a defence."""
        return sorted(
            {(norm, eps) for d, threat, norm, eps in self.headline if d == defence and threat == WORST_CASE and eps > 0}
        )

    def fooled(
        self, defence: str, norm: str, eps: float, includes: Callable[[str, str, str], bool]
    ) -> np.ndarray | None:
        """Return a bool array over the selected images: fooled by any cell that `includes(threat, route, attack)`.

        None if no such cell has rows.
        """
        fooled = None
        for label, parts in self.scores.parts.items():
            if label[0] != defence or label[1] == CLEAN or label[4:] != (norm, eps) or not includes(*label[1:4]):
                continue
            for part in parts.values():
                if part.seen is not None:
                    by_part = part.seen & ~part.right
                    fooled = by_part if fooled is None else fooled | by_part
        return fooled

    def clean_correct(self, defence: str) -> np.ndarray:
        """Return a bool array over the selected images: classified correctly without an attack, in every seed."""
        correct = np.ones(len(self.scores.selected), bool)
        for label, parts in self.scores.parts.items():
            if label[0] == defence and label[1] == CLEAN:
                for part in parts.values():
                    correct &= part.right
        return correct


def reads_probe(name: str) -> Callable:
    """Turn a check of one probe's measurements on one defence into a check of a record.

    The decorated check receives (record, defence, measurements). It is skipped for a defence that was not probed, and
    not applicable, with the error as evidence, if the probe raised one.
    """

    def wrap(check: Callable[["Record", dict, dict], Iterator[Answer]]) -> Callable[["Record"], Iterator[Answer]]:
        @functools.wraps(check)
        def over_defences(record: Record) -> Iterator[Answer]:
            for defence in record.defences:
                measured = record.probe(defence["name"], name)
                if measured is not None and "error" in measured:
                    yield Answer(defence["name"], NOT_APPLICABLE, f"not measured: {measured['error']}")
                elif measured is not None:
                    yield from check(record, defence, measured)

        return over_defences

    return wrap
