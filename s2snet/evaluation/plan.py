"""Plan an evaluation: determine the cells of a job, from facts about its networks and images."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from s2snet.config.choices import choose
from s2snet.data.image_files import find_damaged, first_readable
from s2snet.evaluation import foreign
from s2snet.evaluation.cells import Cell, PlannedAttack, planned_attack
from s2snet.evaluation.costs import Costs
from s2snet.evaluation.foreign import ForeignImages
from s2snet.evaluation.job import Job
from s2snet.evaluation.schema import CLEAN, SCHEMA_VERSION
from s2snet.models import Defended
from s2snet.models.folded import folded
from s2snet.store import weights
from s2snet.threats import ROUTES, SURROGATES, THREATS, Attempt, Facts
from s2snet.threats.knowledge import ANSWERS, GRADIENTS, TAKES, TRAINING_IMAGES
from s2snet.threats.surrogates import VERSION

PROBE = 8  # images on which a module is tested for randomness and its folded copy is made


@dataclass(frozen=True)
class Inputs:
    """Facts computed from a job's objects before its cells are known; they go into the cells' keys."""

    data: dict[str, Any]  # of the test images: name, split, fingerprint, channels
    copies: dict[str, Defended]  # faster copies of the defences, which are attacked in their place
    facts: Facts
    fit: dict[str, Any] | None = None  # the training images of surrogates; without them their routes are left out
    foreign: list[ForeignImages] = field(default_factory=list)


@dataclass
class Plan:
    """The cells of a job and their costs."""

    cells: list[Cell]
    copies: dict[str, Defended]
    data: dict[str, Any]
    costs: Costs


def plan(job: Job) -> Plan:
    """Plan a job. Costs a few forwards of every defence and reads all test images once for their fingerprint.

    Raises ValueError, in one line, if a selected image is damaged: none may be missing from an accuracy.
    """
    _refuse_damaged(job)
    total = len(job.images)
    probe = torch.stack([first_readable(job.images.__getitem__, place, total)[0] for place in range(min(PROBE, total))])
    shape = tuple(probe.shape[1:])
    copy = _once(lambda part: folded(part, probe))  # a part that several defences share is copied once
    inputs = Inputs(
        data={"name": job.name, "split": "test", "fingerprint": job.images.fingerprint(), "channels": shape[0]},
        copies={name: _fast(module, copy) for name, module in job.modules.items()} if job.config.fast else job.modules,
        facts=Facts(_once(weights.fingerprint), _once(lambda module: not deterministic(module, probe))),
        foreign=[foreign.read(path, shape, total) for path in job.config.adversarial],
        fit=_training_facts(job),
    )
    return Plan(cells_of(job, inputs), inputs.copies, inputs.data, Costs(shape, len(job.images.classes)))


def _refuse_damaged(job: Job) -> None:
    broken = find_damaged(job.images, range(job.count))
    if broken:
        named = "; ".join(list(broken.values())[:3]) + ("; ..." if len(broken) > 3 else "")
        raise ValueError(f"{len(broken)} of {job.count} test images are damaged; fix or remove them: {named}")


def _training_facts(job: Job) -> dict[str, Any] | None:
    """Return what surrogates and universal perturbations depend on besides their module, if the job has any."""
    universal = any(threat.name == "universal" for threat in job.config.threat.values())
    labels = getattr(job.train, "labels", torch.empty(0))
    if universal and (labels < 0).any():
        unlabelled = f"{int((labels < 0).sum())} of {len(labels)} training images have no label"
        raise ValueError(f"threat.universal: {unlabelled}; leave it out of threat=[...]")
    fitted = universal or any({"learned", "affine"} & set(threat.routes) for threat in job.config.threat.values())
    return {"train": job.train.fingerprint(), "version": VERSION} if fitted and job.train is not None else None


def deterministic(module: nn.Module, images: Tensor) -> bool:
    """Return whether two passes over the same images give the same logits, bit for bit, NaN for NaN. Two forwards."""
    with torch.no_grad():
        first, second = module(images), module(images)
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


def _fast(defended: Defended, copy: Callable[[nn.Module], nn.Module]) -> Defended:
    """Return a faster copy of a defended module for crafting, part by part, so that every route finds its parts."""
    return Defended(copy(defended.purifier) if defended.has_purifier else None, copy(defended.classifier))


def _once(function: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    """Return `function` with its result cached per module. Holds the modules, so that no id is used twice."""
    known: dict[int, tuple[nn.Module, Any]] = {}

    def recall(module: nn.Module) -> Any:
        if id(module) not in known:
            known[id(module)] = module, function(module)
        return known[id(module)][1]

    return recall


def cells_of(job: Job, inputs: Inputs) -> list[Cell]:
    """Return the cells of a job: the clean images, foreign images, and one per source, attack, norm, budget and seed.

    Cells that several threats ask for are shared. A minimal attack runs once for each of its norms in the budgets,
    whatever the radii.
    """
    attacks = [planned_attack(label, chosen) for label, chosen in job.config.attack.items()]
    _refuse_unknown_norms(attacks, job.config.budgets)
    attempts = _attempts(job, inputs.facts)
    _refuse_unmatched(job, attacks, inputs.fit)
    seeded = any(inputs.facts.random(module) for module in job.modules.values())
    seeds_of_judges = job.config.seed if seeded else [None]
    cells = _clean(job, inputs, seeds_of_judges)
    for images in inputs.foreign:
        cells += _foreign(job, inputs, images, seeds_of_judges)
    for source in _sources(attempts, job, inputs):
        for attack in attacks:
            cells += _crafted(job, source, attack, seeded)
    return cells


def _common(job: Job, inputs: Inputs) -> dict[str, Any]:
    """Return the part that the keys of all cells share."""
    return {"data": inputs.data, "chunk": job.config.chunk, "schema": SCHEMA_VERSION}


def _clean(job: Job, inputs: Inputs, seeds: list[int | None]) -> list[Cell]:
    """Return the cells of the images without an attack: one, or one per seed if a defence answers at random."""
    preimage = {"attack": "none", **_common(job, inputs)}
    given = [{} if seed is None else {"seed": seed} for seed in seeds]
    return [Cell({**preimage, **seed}, "none", [(CLEAN, "", tuple(job.modules))]) for seed in given]


def _foreign(job: Job, inputs: Inputs, images: ForeignImages, seeds: list[int | None]) -> list[Cell]:
    """Return the cells of a file's images: as they are and rounded to 8 bits, for each budget."""
    cells = []
    for eight_bits in (False, True):
        for norm, radii in job.config.budgets.items():
            for budget in radii:
                for seed in seeds:
                    preimage = {
                        "attack": "foreign",
                        "file": images.fingerprint,
                        "eight_bits": eight_bits,
                        "norm": norm,
                        "budget": budget,
                        "seed": seed,
                        **_common(job, inputs),
                    }
                    label = images.name + ("_8bit" if eight_bits else "")
                    cells.append(Cell(preimage, label, [("foreign", "", tuple(job.modules))], foreign=images))
    return cells


@dataclass
class _Source:
    """A module that attacks differentiate, and what of it goes into the cells and their keys."""

    attempt: Attempt  # the first of those that need it
    views: list[tuple[str, str, tuple[str, ...]]]  # (threat, source name, judges) of all that need it
    module: nn.Module
    fast: nn.Module
    surrogate: nn.Module | None
    preimage: dict[str, Any]


def _sources(attempts: list[Attempt], job: Job, inputs: Inputs) -> list[_Source]:
    """Return each distinct source of the attempts.

    Images may leave early only if the source itself is the sole judge for every threat and gives the same answer each
    time. If another judge sees the images, all steps run for all of them.
    """
    facts, defences = inputs.facts, job.modules
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if ROUTES[attempt.route].surrogate is not None and inputs.fit is None:
            continue
        named = [facts.fingerprint(attempt.defended(defences)), attempt.route, attempt.options, attempt.takes]
        groups.setdefault(json.dumps(named, sort_keys=True), []).append(attempt)
    return [_source(group, job, inputs) for group in groups.values()]


def _attempts(job: Job, facts: Facts) -> list[Attempt]:
    """Return the attempts of every threat."""
    attempts = []
    for label, threat in job.config.threat.items():
        choose(f"threat.{label}.name", threat.name, THREATS)
        for route in threat.routes:
            choose(f"threat.{label}.routes", route, ROUTES)
        attempts += THREATS[threat.name](job.modules, threat, facts)
    return attempts


def _source(group: list[Attempt], job: Job, inputs: Inputs) -> _Source:
    attempt, facts = group[0], inputs.facts
    module, copy = attempt.defended(job.modules), attempt.defended(inputs.copies)
    route = ROUTES[attempt.route]
    surrogate = fit = None
    if route.surrogate is not None:
        surrogate = SURROGATES[route.surrogate](inputs.data["channels"])
        fit = {"surrogate": route.surrogate, "purifier": facts.fingerprint(module.purifier), **inputs.fit}
    source, fast = (route.build(part, surrogate, **attempt.options) for part in (module, copy))
    leave_early = all(other.sole_judge for other in group) and not facts.random(module)
    preimage = {
        "source": facts.fingerprint(module),
        "route": {"name": attempt.route, **attempt.options},
        "fit": fit,
        "leave_early": leave_early,
        "fast": _differs(module, copy),
        "precision": job.config.trainer.precision,
        **_common(job, inputs),
        **({"training_images": inputs.fit["train"]} if attempt.takes == TRAINING_IMAGES else {}),
    }
    views = [(other.threat, other.source_name, other.judges) for other in group]
    return _Source(attempt, views, source, fast, surrogate, preimage)


def _crafted(job: Job, source: _Source, attack: PlannedAttack, seeded: bool) -> list[Cell]:
    """Return the cells of one attack on one source: one per norm and budget, and per seed if anything is random."""
    function, options = attack.function, attack.options
    if attack.takes != source.attempt.takes:
        return []
    if source.attempt.route == "eot":
        if "draws" not in inspect.signature(function).parameters:
            return []
        options = options | {"draws": max(source.attempt.options["draws"], options.get("draws", 1))}
    seeds = job.config.seed if seeded or attack.draws_random_numbers else [None]
    cells = []
    for norm, radii in job.config.budgets.items():
        if norm not in function.norms:
            continue
        for budget in [None] if function.minimal else radii:
            for seed in seeds:
                preimage = {
                    **source.preimage,
                    "attack": function.__name__,
                    "options": options,
                    "version": function.version,
                    "norm": norm,
                    "budget": budget,
                    "seed": seed,
                }
                cells.append(Cell(preimage, attack.label, source.views, source.module, source.fast, source.surrogate))
    return cells


def _differs(module: Defended, copy: Defended) -> bool:
    """Return whether the copy is another network: if folding fails, it is the module itself."""
    return copy.classifier is not module.classifier or (module.has_purifier and copy.purifier is not module.purifier)


def _refuse_unknown_norms(attacks: list[PlannedAttack], budgets: dict[str, list[float]]) -> None:
    """Raise ValueError for an attack that knows none of the budgets' norms."""
    for attack in attacks:
        norms, minimal = attack.function.norms, attack.function.minimal
        if budgets and not set(norms) & {norm for norm in budgets if minimal or budgets[norm]}:
            raise ValueError(
                f"attack.{attack.label}: supports {', '.join(norms)}, and budgets has none of them; "
                f"add budgets.{norms[0]}=[{'' if minimal else '0.5'}]"
            )


def _refuse_unmatched(job: Job, attacks: list[PlannedAttack], fit: dict | None) -> None:
    """Raise ValueError for an attack that no threat takes, and for a threat that takes none of the attacks."""
    kinds = {attack.label: attack.takes for attack in attacks}
    takes = {threat.name: TAKES.get(threat.name, GRADIENTS) for threat in job.config.threat.values()}
    for label, needed in kinds.items():
        if takes and needed not in takes.values():
            threat = next((name for name, taken in TAKES.items() if taken == needed), "white_box")
            raise ValueError(
                f"attack.{label}: no chosen threat uses this attack; add {threat} to threat=[...], or leave it out"
            )
    for name, taken in takes.items():
        if kinds and taken not in kinds.values():
            attack = {ANSWERS: "square", TRAINING_IMAGES: "uap"}.get(taken, "apgd")
            raise ValueError(
                f"threat.{name}: uses none of the chosen attacks; add {attack} to attack=[...], or leave it out"
            )
        if taken == TRAINING_IMAGES and fit is None:
            raise ValueError(f"threat.{name}: needs training images, and there are none; leave it out of threat=[...]")
