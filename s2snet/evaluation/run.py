"""One evaluation from settings to files: what is evaluated, the engine's run, rows, table, samples, run.json."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save

from s2snet import data, weights
from s2snet.evaluation import cells as planning
from s2snet.evaluation import defences as defending
from s2snet.evaluation.cells import Cell
from s2snet.evaluation.defences import Defence
from s2snet.evaluation.engine import Engine, chunks, deterministic
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.schema import SCHEMA_VERSION
from s2snet.evaluation.scores import table, write_table
from s2snet.models import Defended
from s2snet.models.folded import folded


def evaluate(settings, config_yaml: str, command: str, explicit: bool, say: Callable[[str], None]) -> Path:
    """Evaluates what the settings name; returns the result folder (evaluation/schema.py says what lies in it).

    `explicit` says that the user named the defences, so that one without weights is an error and not left out.
    """
    images = data.load(data_root=settings.data_root, **settings.data).test
    count = min(settings.images or len(images), len(images))
    notes: list[str] = []
    found = _defences(settings, explicit, notes, say)
    modules = {defence.name: defence.module for defence in found}
    device = _device(settings.trainer.accelerator)
    for module in modules.values():
        module.to(device)
    known: dict[int, tuple[torch.nn.Module, str]] = {}  # holds each module, so that its id stays its own

    def fingerprint(module: torch.nn.Module) -> str:
        if id(module) not in known:
            known[id(module)] = module, weights.fingerprint(module)
        return known[id(module)][1]

    identity = {"name": settings.data["name"], "split": "test", "fingerprint": images.fingerprint()}
    probe = torch.stack([images[place][0] for place in range(min(8, len(images)))]).to(device)
    threats = {key: vars(threat) for key, threat in settings.threat.items()}
    copies = {name: _fast(module, probe) for name, module in modules.items()} if settings.fast else modules
    cells = planning.plan(
        planning.attempts(modules, threats, fingerprint),
        planning.attempts(copies, threats, fingerprint),
        settings.attack,
        settings.budgets,
        settings.seed,
        settings.chunk,
        identity,
        fingerprint,
        lambda module: deterministic(module, probe),
        list(modules),
    )
    folder = Path(settings.output)
    ledger = Ledger(folder / "ledger")
    try:
        (folder / "config.yaml").write_text(config_yaml)
        engine = _run(settings, cells, found, images, count, ledger, device, folder, say)
        rows = engine.rows()
        _replace(folder / "rows.parquet", lambda path: pq.write_table(rows, path))
        facts = _facts(settings, cells, found, identity, images.classes, count, notes, command)
        lines = table(rows, facts["cells"])
        _replace(folder / "table.csv", lambda path: write_table(lines, path))
        _samples(engine, settings.samples, folder)
        _replace(folder / "run.json", lambda path: path.write_text(json.dumps(facts, indent=1) + "\n"))
    finally:
        ledger.close()
    for path in ledger.damaged:
        say(f"damaged, moved aside and made anew: {path}")
    for cell in cells:
        if cell.status != "done":
            say(f"failed: {_describe(cell)}: {cell.reason}")
    return folder


def _defences(settings, explicit: bool, notes: list[str], say: Callable[[str], None]) -> list[Defence]:
    shelf = defending.shelf(settings.weights, settings.runs, settings.data["name"])
    networks = {"classifier": settings.classifier, "autoencoder": settings.autoencoder}
    found = []
    for name, chosen in settings.defence.items():
        try:
            defence = defending.load(name, chosen.title, chosen.purifier, chosen.classifier, shelf, networks)
        except FileNotFoundError as missing:
            if explicit:
                raise
            notes.append(f"Left out: {missing}")
            say(f"left out: {missing}")
            continue
        say(f"{defence.title}: {', '.join(defence.files)}")
        mismatch = defending.tuned_to_another(defence)
        if mismatch:
            notes.append(mismatch)
            say(f"note: {mismatch}")
        found.append(defence)
    if not found:
        raise ValueError(f"no weights in {shelf.folder}; `python train.py stage=classifier` makes the first")
    shapes = {defence.name: defence.module.classifier.header["input"] for defence in found}
    asked = {"channels": settings.data["channels"], "size": settings.data["size"]}
    for name, shape in shapes.items():
        for key, value in asked.items():
            if shape[key] != value:
                raise ValueError(f"defence {name} was trained on data.{key}={shape[key]}; this evaluation has {value}")
    return found


def _run(settings, cells, found, images, count, ledger, device, folder, say) -> Engine:
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not settings.trainer.progress,
    )
    try:
        with progress:
            total = len(cells) * len(chunks(images, settings.chunk, count))
            task = progress.add_task(f"{len(cells)} cells, {count} images", total=total)

            def note(facts: dict[str, Any]) -> None:
                with open(folder / "timing.jsonl", "a") as timing:
                    timing.write(json.dumps(facts) + "\n")

            def tick(cell: Cell, chunk: int) -> None:
                progress.update(task, advance=1, description=_describe(cell))

            engine = Engine(
                cells,
                {defence.name: defence.module for defence in found},
                {defence.name: defence.fingerprint for defence in found},
                images,
                ledger,
                settings.chunk,
                count,
                settings.seed,
                tick,
                note,
                device,
            )
            engine.run()
            progress.update(task, description=f"{len(cells)} cells, {count} images")
    except KeyboardInterrupt:
        say(f"interrupted; the same command goes on from what {folder} holds")
        raise
    return engine


def _facts(
    settings, cells, found, identity: dict[str, str], classes: list[str], count: int, notes, command: str
) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "name": Path(settings.output).name,
        "command": command,
        "data": {
            "name": identity["name"],
            "split": identity["split"],
            "images": count,
            "size": settings.data["size"],
            "channels": settings.data["channels"],
            "fingerprint": identity["fingerprint"],
        },
        "classes": classes,
        "seed": settings.seed,
        "defences": [
            {
                "name": defence.name,
                "title": defence.title,
                "about": defence.about,
                "weights": defence.files,
                "judge": defence.fingerprint,
                "has_purifier": defence.module.has_purifier,
            }
            for defence in found
        ],
        "cells": [
            {
                "crafted": cell.key,
                "threat": threat,
                "source": source,
                "route": cell.preimage["route"],
                "attack": cell.attack,
                "options": cell.preimage["options"],
                "norm": cell.preimage["norm"],
                "budget": cell.preimage["budget"],
                "leave_early": cell.preimage["leave_early"],
                "judges": list(judges),
                "status": cell.status,
                "reason": cell.reason,
            }
            for cell in cells
            if cell.source is not None
            for threat, source, judges in cell.views
        ],
        "notes": notes,
        "versions": weights.versions(),
    }


def _samples(engine: Engine, wanted: int, folder: Path) -> None:
    """samples.safetensors: a few images spread over the selection, as every cell and purifier left them."""
    if not wanted:
        return
    places = np.unique(np.linspace(0, engine.count - 1, min(wanted, engine.count)).astype(int))
    clean = torch.stack([engine.images[place][0] for place in places])
    tensors = {"image": torch.tensor([engine.images[place][2] for place in places]), "clean": clean}

    def purify(name: str, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return engine.defences[name].purifier(images.to(engine.device)).cpu()

    guarded = [name for name, defended in engine.defences.items() if defended.has_purifier]
    for name in guarded:
        tensors[f"purified/clean/{engine.judges[name]}"] = purify(name, clean)
    for cell in engine.cells:
        if cell.source is None or cell.status != "done":
            continue
        kept = {number: engine.adversarial(cell, number) for number in np.unique(places // engine.chunk_size).tolist()}
        left = torch.stack([kept[place // engine.chunk_size][place % engine.chunk_size] for place in places])
        tensors[f"adversarial/{cell.key}"] = left
        for name in cell.judges:
            if name in guarded:
                tensors[f"purified/{cell.key}/{engine.judges[name]}"] = purify(name, left)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _replace(folder / "samples.safetensors", lambda path: path.write_bytes(save(tensors)))


def _fast(defended: Defended, probe: torch.Tensor) -> Defended:
    """A faster copy of a defended module for crafting, part by part, so that every route finds its parts."""
    purifier = folded(defended.purifier, probe) if defended.has_purifier else None
    return Defended(purifier, folded(defended.classifier, probe)).eval()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    beside = path.with_name(path.name + ".part")
    write(beside)
    os.replace(beside, path)


def _describe(cell: Cell) -> str:
    if cell.source is None:
        return "clean images"
    facts = cell.preimage
    return f"{cell.views[0][0]} {cell.views[0][1]} {facts['route']} {cell.attack} {facts['norm']} {facts['budget']:.4g}"


def _device(accelerator: str) -> torch.device:
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if wants_gpu and not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={accelerator}: torch sees no GPU here; trainer=auto takes the CPU")
    return torch.device("cuda" if wants_gpu else "cpu")
