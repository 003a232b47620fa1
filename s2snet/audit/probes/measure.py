"""Run the probes of one evaluation and write probes.json. The only module here that knows the evaluation's engine."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2snet.atomic_io import make_whole
from s2snet.attacks import ATTACKS, Noise, untouched
from s2snet.audit.probes import answers, attacks, gradients, planted
from s2snet.audit.probes.images import pixels_and_copies
from s2snet.audit.probes.passes import random_points
from s2snet.data import Images
from s2snet.evaluation import fitted
from s2snet.evaluation.engine import Engine
from s2snet.evaluation.job import Job
from s2snet.evaluation.plan import Plan
from s2snet.evaluation.schema import USUAL_BUDGET
from s2snet.evaluation.scores import headline_budget
from s2snet.models import Defended

PROBES = "probes.json"
VERSION = 4  # raised when a probe measures something else
FEW = 16  # images for each probe that takes gradients
NOISED, ATTACKED, REJUDGED = 64, 200, 64  # images; noise is tried on those that withstood the attacks


def measure(job: Job, planned: Plan, engine: Engine) -> None:
    """Measure every defence of a finished evaluation and write probes.json into its result folder.

    Measurements of the same defence, data and radius that the file already holds are kept. `audit=quick` takes about 60
    passes in float64 and 130 in float32 per image of 16, and noise; `audit=full` also runs stronger attacks.
    """
    path = job.output / PROBES
    if job.config.audit == "off" or all(cell.clean for cell in engine.cells):
        path.unlink(missing_ok=True)
        return
    eps = radius(job.config.budgets)
    about = {"version": VERSION, "eps": eps, "audit": job.config.audit, "images": job.count}
    about["data"] = planned.data["fingerprint"]
    earlier = _read(path)
    if earlier.get("about") != about:
        earlier = {}
    content: dict[str, Any] = {"about": about, "defences": {}}
    if isinstance(job.images, Images):  # in memory, so that hashing them costs nothing
        train = job.train if isinstance(job.train, Images) else None
        content["data"] = earlier.get("data") or pixels_and_copies(job.images, train)
    for name in engine.defences:
        key = [engine.judges[name], sorted(cell.key for cell in engine.cells if name in cell.judges)]
        kept = earlier.get("defences", {}).get(name, {})
        if kept.get("key") != key:
            kept = {"key": key, **_measured(job, engine, name, eps)}
        content["defences"][name] = kept
    make_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n"))


def radius(budgets: dict[str, list[float]]) -> float:
    """Return the linf radius of the probes: the headline budget if it is linf, else 8/255."""
    norm, eps = headline_budget((norm, eps) for norm, radii in budgets.items() for eps in radii) or ("", 0.0)
    return eps if norm == "linf" else USUAL_BUDGET


def run_each(defended: nn.Module, probes: dict[str, Callable[[], Any]], seed: int = 0) -> dict[str, Any]:
    """Return {name: measurements}; {"error": text} for a probe that raised, since a module may refuse float64."""
    measured = {}
    for name, probe in probes.items():
        with untouched(defended, seed):
            try:
                measured[name] = probe()
            except Exception as error:
                measured[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    return measured


def quick_probes(
    defended: Defended, images: Tensor, labels: Tensor, eps: float, sources: dict[str, nn.Module], seed: int = 0
) -> dict[str, Callable[[], Any]]:
    """Return {name: probe} on the first 16 of `images` [B, C, H, W] in [0, 1]; `eps` is a linf radius.

    `sources` are the defence's routes by name, whose directions are compared.
    """
    few, few_labels = images[:FEW], labels[:FEW]
    draw = torch.Generator().manual_seed(seed)
    near = random_points(few, eps, draw)
    return {
        "head": lambda: answers.head(defended, few),
        "randomness": lambda: answers.randomness(defended, few, few_labels),
        "state": lambda: answers.state(defended, few),
        "gradients": lambda: gradients.vanishing(defended, few, few_labels, near, eps),
        "differences": lambda: gradients.differences(defended, near, few_labels, eps, draw),
        "jumps": lambda: gradients.jumps(defended, near, few_labels, eps, draw),
        "curvature": lambda: gradients.curvature(defended, near, few_labels, eps),
        "ascent": lambda: {
            route: gradients.ascent(defended, source, near, few_labels, eps, seed) for route, source in sources.items()
        },
        "inner": lambda: answers.inner_passes(defended, few),
        "moved": lambda: answers.displacement(defended, few),
    }


def _measured(job: Job, engine: Engine, name: str, eps: float) -> dict[str, Any]:
    """Return the measurements of one defence by probe."""
    defended = engine.defences[name]
    sources = {cell.route: cell.source for cell in _white_box(engine, name)}
    count = min(ATTACKED if job.config.audit == "full" else FEW, job.count)
    images, labels, index = _batch(job, engine, range(count))
    probes = quick_probes(defended, images, labels, eps, sources)
    withstood = _withstood(engine, name, eps)
    noised = _batch(job, engine, withstood[:NOISED])
    probes["noise"] = lambda: attacks.noise(defended, *noised, eps, seed=0)
    stored = _stored(engine, name)
    if stored is not None:
        probes["recomputed"] = lambda: answers.recomputed(defended, *stored)
    if job.config.audit == "full":
        strong = {route: sources[route] for route in ("exact", "soft") if route in sources} or {"exact": defended}
        still = torch.from_numpy(np.isin(np.arange(len(images)), withstood))
        probes["more"] = lambda: attacks.stronger(defended, strong, images, labels, index, still, eps, seed=0)
        planted_in = images[: planted.IMAGES]
        as_run = _attacks_as_run(engine, name, eps, index[: planted.IMAGES])
        if as_run:
            probes["active"] = lambda: planted.active(defended, as_run, planted_in, eps, seed=0)
        if job.train is not None and getattr(defended.purifier, "config", None):
            batches = fitted.batches(job.train)
            probes["control"] = lambda: attacks.identity_control(
                defended, batches, len(job.train), images, labels, index, eps, seed=0
            )
    return run_each(defended, probes)


def _batch(job: Job, engine: Engine, places: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return (images, labels, index) at these places of the data; images and labels on the engine's device."""
    batch = [job.images[place] for place in places]
    shape = (0, *job.images[0][0].shape)
    images = torch.stack([item[0] for item in batch]) if batch else torch.empty(shape)
    labels = torch.tensor([int(item[1]) for item in batch], dtype=torch.int64)
    index = torch.tensor([int(item[2]) for item in batch], dtype=torch.int64)
    return images.to(engine.ranks.device), labels.to(engine.ranks.device), index


def _withstood(engine: Engine, name: str, eps: float) -> list[int]:
    """Return the places of images that a defence classifies correctly, clean and in every cell within linf `eps`."""
    cells = [cell for cell in engine.cells if name in cell.judges and (cell.clean or cell.norm == "linf")]
    withstood = []
    for number, places in enumerate(engine.chunks):
        correct = np.ones(len(places), bool)
        for cell in cells:
            rows = engine.ledger.judged(cell.key, engine.judges[name], number)
            if rows is not None:
                within = rows["linf"].to_numpy()[: len(places)] <= eps
                correct[: len(within)] &= rows["correct"].to_numpy()[: len(places)] | ~within
        withstood += [places[int(inside)] for inside in np.flatnonzero(correct)]
    return withstood


def _white_box(engine: Engine, name: str) -> list:
    """Return the cells of the white box whose judge is this defence."""
    return [
        cell
        for cell in engine.cells
        if cell.source is not None and any(view[0] == "white_box" and name in view[2] for view in cell.views)
    ]


def _attacks_as_run(engine: Engine, name: str, eps: float, index: Tensor) -> dict[str, tuple[nn.Module, Callable]]:
    """Return {route and attack: (source, the attack with the evaluation's options)} of the white box at linf `eps`.

    The source itself and not its faster copy, and without early leaving, because each image has its own readout.
    """
    as_run: dict[str, tuple[nn.Module, Callable]] = {}
    for cell in _white_box(engine, name):
        options = {key: value for key, value in cell.preimage["options"].items() if key != "targets"}
        if (cell.norm, cell.budget) != ("linf", eps) or cell.preimage["options"].get("targets") is not None:
            continue
        attack = ATTACKS[cell.preimage["attack"]]
        given = {"eps": eps, "norm": "linf", "noise": Noise(cell.seed or 0, index), **options}
        as_run.setdefault(f"{cell.route} {cell.attack}", (cell.source, partial(attack, **given)))
    return as_run


def _stored(engine: Engine, name: str) -> tuple[Tensor, Tensor] | None:
    """Return (adversarial images of one cell's first chunk, the judge's predictions); None if none were stored."""
    for cell in _white_box(engine, name):
        if cell.status != "done":
            continue
        crafted = engine.ledger.crafted(cell.key, 0)
        rows = engine.ledger.judged(cell.key, engine.judges[name], 0)
        if crafted is not None and rows is not None:
            count = min(REJUDGED, len(rows), len(crafted["image"]))
            predictions = torch.from_numpy(rows["prediction"].to_numpy()[:count].copy())
            return crafted["adversarial"][:count].to(engine.ranks.device), predictions
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
