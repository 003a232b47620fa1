"""Write the files of a result folder: rows, table, measures, curves, the explorer's samples, run.json."""

import json
import statistics
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from s2snet.atomic_io import make_whole
from s2snet.evaluation import measures, timing
from s2snet.evaluation.cells import Cell
from s2snet.evaluation.engine import Engine, repeatable
from s2snet.evaluation.job import Job
from s2snet.evaluation.plan import Plan
from s2snet.evaluation.schema import CURVE_COLUMNS, MEASURE_COLUMNS, ROW_SCHEMA, SCHEMA_VERSION
from s2snet.evaluation.scores import Scores, write_table
from s2snet.models import Defended
from s2snet.store import weights

BUFFERED = 1 << 13  # rows per write: memory stays flat, and row groups large enough to read efficiently


def write(job: Job, plan: Plan, engine: Engine) -> None:
    """Write every file of the result folder from the ledger, a chunk at a time."""
    folder = job.output
    make_whole(folder / "rows.parquet", lambda path: _rows(engine, path))
    facts = _facts(job, plan)
    scores = Scores(folder / "rows.parquet", facts["cells"], job.config.budgets)
    make_whole(folder / "table.csv", lambda path: write_table(scores.table(), path))
    rows = folder / "rows.parquet"
    measured = measures.measures(scores, rows, facts["classes"])
    make_whole(folder / "measures.csv", lambda path: measures.write(measured, MEASURE_COLUMNS, path))
    facts["notes"] = facts["notes"] + _foreign_counts(measured)
    points = measures.curves(scores, rows)
    make_whole(folder / "curves.csv", lambda path: measures.write(points, CURVE_COLUMNS, path))
    _samples(engine, folder)
    _inference(job, engine)
    make_whole(folder / "run.json", lambda path: path.write_text(json.dumps(facts, indent=1) + "\n"))


def _rows(engine: Engine, path: Path) -> None:
    held: list[pa.Table] = []
    with pq.ParquetWriter(path, ROW_SCHEMA) as writer:
        for rows in engine.rows():
            held.append(rows)
            if sum(map(len, held)) >= BUFFERED:
                writer.write_table(pa.concat_tables(held).combine_chunks())
                held = []
        if held:
            writer.write_table(pa.concat_tables(held).combine_chunks())


def _facts(job: Job, plan: Plan) -> dict[str, Any]:
    """Return the content of run.json."""
    image = job.images[0][0]
    return {
        "schema": SCHEMA_VERSION,
        "name": job.output.name,
        "command": job.command,
        "data": {
            "name": job.name,
            "split": "test",
            "images": job.count,
            "size": image.shape[-1],
            "channels": image.shape[0],
            "fingerprint": plan.data["fingerprint"],
        },
        "classes": [str(name) for name in job.images.classes],
        "budgets": job.config.budgets,
        "audit": job.config.audit,
        "seed": job.config.seed[0] if len(job.config.seed) == 1 else job.config.seed,
        "defences": [
            {
                "name": defence.name,
                "title": defence.title,
                "about": defence.about,
                "weights": defence.files,
                "judge": defence.fingerprint,
                "parts": _parts(defence.module),
                "has_purifier": defence.module.has_purifier,
            }
            for defence in job.defences
        ],
        "cells": [
            {
                "crafted": cell.key,
                "threat": threat,
                "source": source,
                "route": cell.route,
                "attack": cell.attack,
                "options": cell.options,
                "passes": _passes(plan, cell),
                "norm": cell.norm,
                "budget": cell.preimage["budget"],
                "seed": cell.seed,
                "leave_early": cell.leave_early,
                "judges": list(judges),
                "status": cell.status,
                "reason": cell.reason,
            }
            for cell in plan.cells
            if not cell.clean
            for threat, source, judges in cell.views
        ],
        "notes": job.notes,
        "versions": weights.versions(),
    }


def _passes(plan: Plan, cell: Cell) -> list[float] | None:
    """Return [forwards, backwards] per image without leaving early, or None for a cell that attacks no test image."""
    return None if cell.source is None or cell.universal else list(astuple(plan.costs.of(cell)))


def _parts(defended: Defended) -> dict[str, str]:
    """Return the fingerprints of a defence's parts, by which weights find their evaluation (report/card.py)."""
    parts = {"classifier": weights.fingerprint(defended.classifier)}
    return parts | ({"purifier": weights.fingerprint(defended.purifier)} if defended.has_purifier else {})


def _foreign_counts(measured: list[dict]) -> list[str]:
    """Return a sentence per foreign cell whose file has images beyond the budget, or fewer than were evaluated."""
    notes = {}
    for line in measured:
        if line["measure"] == "changed" and line["value"] < line["images"]:
            cell = f"{line['attack']} at {line['norm']} {line['budget']:.4g}"
            notes[cell] = f"{cell}: {line['value']:.0f} of {line['images']} images come from the file and lie within"
    return [f"{text} the budget; the others count as unchanged." for text in notes.values()]


def _samples(engine: Engine, folder: Path) -> None:
    """Write samples.safetensors: a few images spread over the selection, after every cell and purifier."""
    path = folder / "samples.safetensors"
    if not len(engine.sample):
        path.unlink(missing_ok=True)
        return
    images, device = engine.images, engine.ranks.device
    clean = torch.stack([images[int(place)][0] for place in engine.sample])
    tensors = {"image": torch.tensor([int(images[int(place)][2]) for place in engine.sample]), "clean": clean}

    def purify(name: str, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), repeatable(0, engine.judges[name], 0):
            return engine.defences[name].purifier(batch.to(device)).cpu()

    guarded = [name for name, defended in engine.defences.items() if defended.has_purifier]
    for name in guarded:
        tensors[f"purified/clean/{engine.judges[name]}"] = purify(name, clean)
    numbers = np.unique(engine.sample // engine.job.config.chunk).tolist()
    for cell in engine.cells:
        if cell.source is None or cell.status != "done":
            continue
        parts = [engine.adversarial(cell, number, engine.shown(number)) for number in numbers]
        if any(part is None for part in parts):
            continue
        adversarial = torch.cat(parts)
        tensors[f"adversarial/{cell.key}"] = adversarial
        for name in cell.judges:
            if name in guarded:
                tensors[f"purified/{cell.key}/{engine.judges[name]}"] = purify(name, adversarial)
    # a purifier may return its input, and a file cannot hold two views of one memory
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    make_whole(path, lambda partial: partial.write_bytes(save(tensors)))


def _inference(job: Job, engine: Engine, rounds: int = 3) -> None:
    """Append to timing.jsonl how long a forward pass of each defence takes, relative to its bare classifier.

    Measured once per defence: times are not part of the result, so an earlier line is kept.
    """
    known = {line.get("inference") for line in timing.read(job.output)}
    batch = torch.stack([job.images[place][0] for place in range(min(16, job.count))]).to(engine.ranks.device)
    for name, defended in engine.defences.items():
        if engine.judges[name] in known or not defended.has_purifier:
            continue
        ratios = []
        for _ in range(rounds):
            bare, whole = (_seconds(module, batch) for module in (defended.classifier, defended))
            ratios.append(whole / bare)
        facts = {"inference": engine.judges[name], "defence": name, "times_the_classifier": statistics.median(ratios)}
        timing.append(job.output, facts)


def _seconds(module: torch.nn.Module, batch: torch.Tensor) -> float:
    started = time.perf_counter()
    with torch.no_grad():
        module(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
