"""Takes the probes of one evaluation: which defences, which images, at which radius; writes probes.json."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from s2snet.atomic_io import make_whole
from s2snet.attacks import ATTACKS, Noise
from s2snet.data import Images
from s2snet.evaluation import fitted, planted, probes
from s2snet.evaluation.engine import Engine
from s2snet.evaluation.schema import USUAL_BUDGET

PROBES = "probes.json"
VERSION = 4  # raised when a probe measures something else
NOISED, ATTACKED, REJUDGED = 64, 200, 64  # images; noise is tried on those that the attacks left


def measure(job, planned, engine: Engine) -> None:
    """Writes probes.json beside the results; what it holds already for the same defence, data and radius is kept."""
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
    found: dict[str, Any] = {"about": about, "defences": {}}
    if isinstance(job.images, Images):  # in memory: hashing them costs nothing
        train = job.train if isinstance(job.train, Images) else None
        found["data"] = earlier.get("data") or probes.data(job.images, train)
    for name in engine.defences:
        key = [engine.judges[name], sorted(cell.key for cell in engine.cells if name in cell.judges)]
        kept = earlier.get("defences", {}).get(name, {})
        found["defences"][name] = kept if kept.get("key") == key else {"key": key, **_probed(job, engine, name, eps)}
    make_whole(path, lambda beside: beside.write_text(json.dumps(found, indent=1) + "\n"))


def _probed(job, engine: Engine, name: str, eps: float) -> dict[str, Any]:
    """What the probes of one defence found."""
    defended = engine.defences[name]
    sources = {cell.route: cell.source for cell in _white_box(engine, name)}
    images, labels, index = _batch(
        job, engine, range(min(ATTACKED if job.config.audit == "full" else probes.IMAGES, job.count))
    )
    measures = probes.quick(defended, images, labels, eps, sources)
    left = _left(engine, name, eps)
    noised = _batch(job, engine, left[:NOISED])
    measures["noise"] = lambda: probes.noise(defended, *noised, eps, seed=0)
    kept = _kept(engine, name)
    if kept is not None:
        measures["recomputed"] = lambda: probes.recomputed(defended, *kept)
    if job.config.audit == "full":
        strong = {route: sources[route] for route in ("exact", "soft") if route in sources} or {"exact": defended}
        still = torch.from_numpy(np.isin(np.arange(len(images)), left))
        measures["more"] = lambda: probes.more(defended, strong, images, labels, index, still, eps, seed=0)
        plants = images[: planted.IMAGES]
        attacks = _attacks(engine, name, eps, index[: planted.IMAGES])
        if attacks:
            measures["active"] = lambda: planted.active(defended, attacks, plants, eps, seed=0)
        if job.train is not None and getattr(defended.purifier, "config", None):
            batches = fitted.batches(job.train)
            measures["control"] = lambda: probes.control(
                defended, batches, len(job.train), images, labels, index, eps, seed=0
            )
    return probes.taken(defended, measures)


def _batch(job, engine: Engine, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(images, labels, index) at these places of the data; the first two on the engine's device."""
    batch = [job.images[place] for place in places]
    shape = (0, *job.images[0][0].shape)
    images = torch.stack([item[0] for item in batch]) if batch else torch.empty(shape)
    labels = torch.tensor([int(item[1]) for item in batch], dtype=torch.int64)
    index = torch.tensor([int(item[2]) for item in batch], dtype=torch.int64)
    return images.to(engine.ranks.device), labels.to(engine.ranks.device), index


def _left(engine: Engine, name: str, eps: float) -> list[int]:
    """The places of images that a defence gets right without an attack and in every cell within linf `eps`."""
    cells = [cell for cell in engine.cells if name in cell.judges and (cell.clean or cell.norm == "linf")]
    left = []
    for number, places in enumerate(engine.chunks):
        right = np.ones(len(places), bool)
        for cell in cells:
            rows = engine.ledger.judged(cell.key, engine.judges[name], number)
            if rows is not None:
                within = rows["linf"].to_numpy()[: len(places)] <= eps
                right[: len(within)] &= rows["correct"].to_numpy()[: len(places)] | ~within
        left += [places[int(inside)] for inside in np.flatnonzero(right)]
    return left


def radius(budgets: dict[str, list[float]]) -> float:
    """The linf radius at which probes are taken: 8/255 where it is a budget or there is none, else the smallest."""
    radii = [eps for eps in budgets.get("linf", []) if eps > 0]
    usual = [eps for eps in radii if math.isclose(eps, USUAL_BUDGET, rel_tol=1e-6)]
    return usual[0] if usual else min(radii, default=USUAL_BUDGET)


def _white_box(engine: Engine, name: str) -> list:
    return [
        cell
        for cell in engine.cells
        if cell.source is not None and any(view[0] == "white_box" and name in view[2] for view in cell.views)
    ]


def _attacks(engine: Engine, name: str, eps: float, index: torch.Tensor) -> dict[str, tuple[nn.Module, Callable]]:
    """{route and attack: (source, the attack as this evaluation runs it)} of the white box at linf `eps`.

    A copy is not asked, and an image does not leave early: each has a readout at its own place.
    """
    found: dict[str, tuple[nn.Module, Callable]] = {}
    for cell in _white_box(engine, name):
        options = {key: value for key, value in cell.preimage["options"].items() if key != "targets"}
        if (cell.norm, cell.budget) != ("linf", eps) or cell.preimage["options"].get("targets") is not None:
            continue
        attack = ATTACKS[cell.preimage["attack"]]
        given = {"eps": eps, "norm": "linf", "noise": Noise(cell.seed or 0, index), **options}
        found.setdefault(f"{cell.route} {cell.attack}", (cell.source, partial(attack, **given)))
    return found


def _kept(engine: Engine, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(adversarial images of one cell's first chunk, the judge's predictions); None where none were kept."""
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
