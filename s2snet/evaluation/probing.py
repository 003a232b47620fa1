"""Takes the probes of one evaluation: which defences, which images, at which radius; writes probes.json."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from s2snet.data import Images
from s2snet.evaluation import probes
from s2snet.evaluation.engine import Engine
from s2snet.files import make_whole

AUDITS = ("off", "quick", "full")
VERSION = 1  # raised when a probe measures something else
USUAL = 8 / 255
NOISED, ATTACKED, REJUDGED = 64, 200, 64  # images


def measure(job, planned, engine: Engine) -> None:
    """Writes probes.json beside the results; what it holds already for the same defence, data and radius is kept."""
    path = job.output / "probes.json"
    if job.audit == "off":
        path.unlink(missing_ok=True)
        return
    eps = radius(job.budgets)
    earlier = _read(path)
    found: dict[str, Any] = {"audit": job.audit, "eps": eps, "version": VERSION, "defences": {}}
    about = {
        "version": VERSION,
        "eps": eps,
        "data": planned.data["fingerprint"],
        "audit": job.audit,
        "images": job.count,
    }
    if earlier.get("about") == about:
        found["data"] = earlier["data"]
    elif isinstance(job.images, Images):  # in memory: hashing them costs nothing
        found["data"] = probes.data(job.images, job.train if isinstance(job.train, Images) else None)
    found["about"] = about
    for name, defended in engine.defences.items():
        kept = earlier.get("defences", {}).get(name, {}) if earlier.get("about") == about else {}
        routes = sorted({cell.route for cell in _white_box(engine, name)})
        key = [engine.judges[name], routes]
        if kept.get("key") == key:
            found["defences"][name] = kept
            continue
        sources = {cell.route: cell.source for cell in _white_box(engine, name)}
        batch = [job.images[place] for place in range(min(max(NOISED, ATTACKED * (job.audit == "full")), job.count))]
        device = engine.ranks.device
        images = torch.stack([item[0] for item in batch]).to(device)
        labels = torch.tensor([int(item[1]) for item in batch], device=device)
        index = torch.tensor([int(item[2]) for item in batch])
        few = slice(0, NOISED)
        measures = probes.quick(defended, images, labels, eps, sources)
        measures["noise"] = lambda: probes.noise(defended, images[few], labels[few], index[few], eps, 0)  # noqa: B023
        kept_images = _kept(engine, name)
        if kept_images is not None:
            measures["recomputed"] = lambda: probes.recomputed(defended, *kept_images)  # noqa: B023
        if job.audit == "full":
            strong = {route: sources[route] for route in ("exact", "soft") if route in sources} or {"exact": defended}
            measures["more"] = lambda: probes.more(defended, strong, images, labels, index, eps, 0)  # noqa: B023
        found["defences"][name] = {"key": key, **probes.taken(defended, measures)}
    make_whole(path, lambda beside: beside.write_text(json.dumps(found, indent=1) + "\n"))


def radius(budgets: dict[str, list[float]]) -> float:
    """The linf radius at which probes are taken: 8/255 where it is a budget or there is none, else the smallest."""
    radii = [eps for eps in budgets.get("linf", []) if eps > 0]
    if not radii or any(math.isclose(eps, USUAL, rel_tol=1e-6) for eps in radii):
        return next((eps for eps in radii if math.isclose(eps, USUAL, rel_tol=1e-6)), USUAL)
    return min(radii)


def _white_box(engine: Engine, name: str) -> list:
    return [
        cell
        for cell in engine.cells
        if cell.source is not None and any(view[0] == "white_box" and name in view[2] for view in cell.views)
    ]


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
