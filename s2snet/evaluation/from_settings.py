"""From the settings of `python evaluate.py` to a Job: data by name, defences found on the shelf."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from torch import nn

from s2snet import data
from s2snet.evaluation.forecast import forecast
from s2snet.evaluation.run import Job, run
from s2snet.models.check_input import check_input
from s2snet.store import defences as defending
from s2snet.store import networks
from s2snet.store.defences import Defence


def evaluate(
    settings, config_yaml: str, command: str, explicit: bool, say: Callable[[str], None], probe: Callable | None = None
) -> Path | None:
    """Evaluates what the settings name; returns the result folder, or None where only the plan was asked for.

    `explicit` says that the user named the defences, so that one without weights is an error and not left out.
    `probe` measures the finished evaluation for the audit (evaluation/run.py).
    """
    splits = data.load_chosen(settings)
    if not splits.labelled:
        raise ValueError(f"data={settings.data['name']} has no labels: an evaluation needs them")
    notes: list[str] = []
    defences = find_defences(settings, splits, explicit, notes, say)
    job = Job(
        name=settings.data["name"],
        images=splits.test,
        train=_to_fit(splits),
        defences=defences,
        threats={label: vars(threat) for label, threat in settings.threat.items()},
        attacks=settings.attack,
        budgets=settings.budgets,
        adversarial=settings.adversarial,
        output=Path(settings.output),
        count=settings.images,
        seeds=settings.seed,
        chunk=settings.chunk,
        keep=settings.keep,
        samples=settings.samples,
        fast=settings.fast,
        audit=settings.audit,
        trainer=settings.trainer,
        command=command,
        config=config_yaml,
        notes=notes,
    )
    if settings.plan:
        forecast(job)
        return None
    return run(job, say, probe)


def _to_fit(splits: data.Splits) -> data.Images | data.ImageFiles | None:
    """The images that surrogates and perturbations are made on, by number, which a stream does not have."""
    found = splits.validation if isinstance(splits.train, data.Shards) else splits.train
    return found if len(found) else None


def find_defences(
    settings, splits: data.Splits, explicit: bool, notes: list[str], say: Callable[[str], None]
) -> list[Defence]:
    """The defences that the settings name, checked against the data; what a reader must know goes into `notes`.

    One without weights is left out with a note, or, where they were named (`explicit`), a FileNotFoundError.
    """
    shelf = defending.shelf(settings.weights, settings.runs, settings.data["name"])

    def note(text: str) -> None:
        notes.append(text)
        say(f"note: {text}")

    @cache
    def classifier() -> tuple[nn.Module, str]:
        return networks.find_classifier(settings, shelf, note)

    found = []
    for name, chosen in settings.defence.items():
        try:
            defence = defending.load(name, chosen, shelf, settings, classifier)
        except FileNotFoundError as missing:
            if explicit:
                raise
            notes.append(f"Left out: {missing}")
            say(f"left out: {missing}")
            continue
        say(f"{defence.title}: {', '.join(defence.files)}")
        mismatch = defending.tuned_to_another(defence)
        if mismatch:
            note(mismatch)
        found.append(defence)
    if not found:
        raise ValueError(f"no weights in {shelf.folder}; `python train.py stage=classifier` makes the first")
    shapes = {defence.name: defence.module.classifier.header["input"] for defence in found}
    asked = {"channels": settings.data["channels"], "size": settings.data["size"]}
    for name, shape in shapes.items():
        for key, value in asked.items():
            if shape[key] != value:
                raise ValueError(f"defence {name} was trained on data.{key}={shape[key]}; here it is {value}")
    for defence in found:
        size = settings.data["channels"], settings.data["size"]
        check_input(defence.module, f"defence {defence.name}", *size)
        check_input(defence.module.classifier, f"the classifier of {defence.name}", *size, len(splits.test.classes))
    return found
