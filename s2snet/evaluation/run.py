"""One evaluation from start to files: plan, ranks, the engine's run, results. What it evaluates is a `Job`.

`python evaluate.py` makes a Job from settings (from_settings.py), `s2snet.evaluate` from objects (s2snet/api.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from s2snet.attacks.balls import NORMS
from s2snet.config.choices import choose
from s2snet.config.runtime import Trainer
from s2snet.data.image_files import find_damaged, first_readable
from s2snet.evaluation import cells as planning
from s2snet.evaluation import fitted, foreign, probing, progress, ranks, results
from s2snet.evaluation.costs import Costs, shares
from s2snet.evaluation.engine import KEEP, Engine, deterministic
from s2snet.evaluation.ledger import Ledger
from s2snet.models import Defended
from s2snet.models.folded import folded
from s2snet.rank_zero import is_first
from s2snet.store import weights
from s2snet.store.defences import Defence
from s2snet.threats import Facts

KEEP_ALL_UP_TO = 10_000  # images; above it only those that the report shows are kept
PROBE = 8  # images that show whether a module answers at random, and fold its copy


@dataclass
class Job:
    """What is evaluated, on what, by which attacks."""

    name: str  # of the data
    images: Any  # the test images: (image, label, index) in ascending order of index; .classes, .fingerprint()
    defences: list[Defence]
    threats: dict[str, dict[str, Any]]
    attacks: dict[str, dict[str, Any]]
    budgets: dict[str, list[float]]
    output: Path
    train: Any = None  # training images, for surrogates and universal perturbations; None: no route with a surrogate
    adversarial: list[str] = field(default_factory=list)  # files of foreign images
    count: int | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    chunk: int = 360
    keep: str | None = None  # all, sample, none; None: all up to KEEP_ALL_UP_TO images, sample above
    samples: int = 12
    fast: bool = True
    audit: str = "quick"  # off, quick, full: which probes are taken for the audit
    trainer: Trainer = field(default_factory=lambda: Trainer(progress=False))
    command: str = ""
    config: str = ""  # the settings as YAML
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.count = min(self.count or len(self.images), len(self.images))
        if self.keep is not None:
            choose("keep", self.keep, KEEP)
        for norm, radii in self.budgets.items():
            choose("budgets' norm", norm, NORMS)
            for eps in radii:
                if not 0 <= eps < math.inf or (norm == "linf" and eps > 1):
                    hint = f"; did you mean {eps:g}/255?" if eps > 1 else ""
                    raise ValueError(f"budgets.{norm}={eps:g}: radii are in [0, 1] pixel units{hint}")
        choose("trainer.precision", self.trainer.precision, ranks.PRECISIONS)
        choose("audit", self.audit, probing.AUDITS)

    @property
    def kept(self) -> str:
        return self.keep or ("all" if self.count <= KEEP_ALL_UP_TO else "sample")

    @property
    def modules(self) -> dict[str, Defended]:
        return {defence.name: defence.module for defence in self.defences}


@dataclass
class Plan:
    """A job's cells, before anything runs."""

    cells: list[planning.Cell]
    copies: dict[str, Defended]
    data: dict[str, Any]
    costs: Costs


def plan(job: Job) -> Plan:
    """The cells of a job. Costs a few forwards of every defence; reads the test images, and once more their files.

    ValueError, in one line, where files of selected images are damaged: none may be left out of an accuracy.
    """
    broken = find_damaged(job.images, range(job.count))
    if broken:
        named = "; ".join(list(broken.values())[:3]) + ("; ..." if len(broken) > 3 else "")
        raise ValueError(f"{len(broken)} of {job.count} test images damaged; mend or remove them: {named}")
    total = len(job.images)
    probe = torch.stack([first_readable(job.images.__getitem__, place, total)[0] for place in range(min(PROBE, total))])
    shape = tuple(probe.shape[1:])
    data = {
        "name": job.name,
        "split": "test",
        "fingerprint": job.images.fingerprint(),
        "channels": shape[0],
    }
    copy = _once(lambda part: folded(part, probe))  # a part that several defences share is copied once
    copies = {name: _fast(module, copy) for name, module in job.modules.items()} if job.fast else job.modules
    given = [foreign.read(path, shape, len(job.images)) for path in job.adversarial]
    fit = None if job.train is None or not _needs_fit(job.threats) else fitted.training_facts(job.train)
    labels = getattr(job.train, "labels", torch.empty(0))
    if any(threat["name"] == "universal" for threat in job.threats.values()) and (labels < 0).any():
        unlabelled = f"{int((labels < 0).sum())} of {len(labels)} training images have no label"
        raise ValueError(f"threat.universal: {unlabelled}; leave it out of threat=[...]")
    cells = planning.plan(
        job.modules,
        copies,
        job.threats,
        job.attacks,
        job.budgets,
        job.seeds,
        job.chunk,
        data,
        Facts(_once(weights.fingerprint), _once(lambda module: not deterministic(module, probe))),
        fit,
        given,
        job.trainer.precision,
    )
    return Plan(cells, copies, data, Costs(shape, len(job.images.classes)))


def run(job: Job, say: Callable[[str], None]) -> Path:
    """Evaluates; returns the result folder (evaluation/schema.py says what lies in it).

    Every rank comes through here: each crafts and judges its share, the first writes the results.
    KeyboardInterrupt where the user stopped it: the ledger holds what was done.
    """
    planned = plan(job)
    first = is_first()
    ledger = Ledger(job.output / "ledger", hold=first)
    try:
        if first:
            ledger.forget_failures()
            (job.output / "config.yaml").write_text(job.config)
        here = ranks.launch(job.trainer)
        for module in (*job.modules.values(), *planned.copies.values()):
            module.to(here.device)
        fitted.prepare(planned.cells, job.train, ledger, here, say)
        here.wait()
        engine, stopped = _run(job, planned, ledger, here, say)
        if stopped:
            say(f"stopped; the same command goes on from what {job.output} holds")
            raise KeyboardInterrupt
        here.wait()
        if here.first:
            engine.conclude()
            probing.measure(job, planned, engine)
            results.write(job, planned, engine)
        here.wait()
    finally:
        ledger.close()
    if first:
        for path in ledger.damaged:
            say(f"damaged, moved aside and made anew: {path}")
        for cell in planned.cells:
            if cell.status != "done":
                say(f"failed: {cell.describe()}: {cell.reason}")
    return job.output


def _run(job: Job, planned: Plan, ledger: Ledger, here: ranks.Ranks, say: Callable) -> tuple[Engine, bool]:
    cells = planned.cells
    with progress.shown(job, planned, here, say) as (tick, note, stop):
        engine = Engine(
            cells,
            job.modules,
            {defence.name: defence.fingerprint for defence in job.defences},
            job.images,
            ledger,
            job.chunk,
            job.count,
            tick,
            note,
            here,
            job.trainer.precision,
            job.kept,
            np.unique(np.linspace(0, job.count - 1, min(job.samples, job.count)).astype(int)),
            stop,
        )
        owner = shares(cells, [len(places) for places in engine.chunks], here.world, planned.costs)
        finished = engine.run(owner)
    return engine, not finished


def _once(measure: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    """`measure`, computed once for each module. Holds the modules, so that an id stays its own."""
    known: dict[int, tuple[nn.Module, Any]] = {}

    def recall(module: nn.Module) -> Any:
        if id(module) not in known:
            known[id(module)] = module, measure(module)
        return known[id(module)][1]

    return recall


def _needs_fit(threats: dict[str, dict[str, Any]]) -> bool:
    return any(
        threat["name"] == "universal" or {"learned", "affine"} & set(threat["routes"]) for threat in threats.values()
    )


def _fast(defended: Defended, copy: Callable[[nn.Module], nn.Module]) -> Defended:
    """A faster copy of a defended module for crafting, part by part, so that every route finds its parts."""
    return Defended(copy(defended.purifier) if defended.has_purifier else None, copy(defended.classifier))
