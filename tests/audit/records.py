"""Result folders for tests of checks: written by hand, or of a small evaluation with its probes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from handmade import EPS, cell_of, rows_of
from jobs import job

from s2snet.audit.checks import CHECKS, Record
from s2snet.audit.checks.finding import Answer
from s2snet.audit.probes.measure import measure
from s2snet.evaluation.run import run
from s2snet.evaluation.scores import Scores, write_table

N = 200
RIGHT = [1] * N


def turned(count: int, first: int = 0, n: int = N) -> list[int]:
    """Return rows that are all correct, except `count` images from `first` on."""
    return [int(not first <= place < first + count) for place in range(n)]


def folder(
    *groups: dict,
    probes: dict | None = None,
    data: dict | None = None,
    cells: dict[str, dict] | None = None,
    classes: int = 10,
    clean: list[int] | None = None,
    purifier: bool = True,
) -> Path:
    """Write and return a result folder of these groups under attack (handmade.attacked).

    `cells` adds to the cells of run.json by crafted key; `probes` are the measurements of each defence, `data` those of
    the images.
    """
    here = Path("made")
    here.mkdir()
    names = list(dict.fromkeys(group.get("defence", "none") for group in groups)) or ["none"]
    n = len(groups[0]["correct"]) if groups else N
    for group in groups:
        group.setdefault(group["norm"], group["budget"] if group["budget"] != float("inf") else EPS)
    rows = rows_of(*({"correct": clean or [1] * n, "defence": name} for name in names), *groups)
    run = {
        "defences": [{"name": name, "has_purifier": purifier} for name in names],
        "classes": [str(number) for number in range(classes)],
        "budgets": {"linf": sorted({g["budget"] for g in groups if g["budget"] != float("inf")})},
        "audit": "quick",
        "cells": [
            {"options": {}, "passes": None, "leave_early": False, **cell_of(group), **(cells or {}).get(key, {})}
            for key, group in {group["crafted"]: group for group in groups}.items()
        ],
    }
    for cell in run["cells"]:
        if cell["budget"] == float("inf"):
            cell["budget"] = None
    pq.write_table(rows, here / "rows.parquet")
    write_table(Scores(rows, run["cells"], run["budgets"]).table(), here / "table.csv")
    (here / "run.json").write_text(json.dumps(run))
    (here / "probes.json").write_text(json.dumps({"defences": dict.fromkeys(names, probes or {}), "data": data}))
    return here


def answer(check: str, here: Path, defence: str = "none") -> Answer:
    """Return the one answer of a check on a defence, or on the whole evaluation."""
    (one,) = (answer for answer in CHECKS[check](Record(here)) if answer.defence in (defence, ""))
    return one


def measured(output: str = "r", **changed) -> Path:
    """Return the result folder of `jobs.job`, with its probes."""
    return run(job(output, **({"audit": "quick"} | changed)), lambda text: None, probe=measure)
