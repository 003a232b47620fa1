"""The defences of an evaluation: which weights each is made of, found by name or given as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from s2snet import remote, runs, weights
from s2snet.models import AUTOENCODERS, CLASSIFIERS, Defended


@dataclass
class Defence:
    """A named classifier that may be robust, ready to be attacked and to judge."""

    name: str
    title: str
    module: Defended
    files: list[str]
    fingerprint: str
    about: str


def shelf(folder: str | None, runs_folder: str, data: str) -> runs.Shelf:
    """Where weights are looked up: the folder given, else what was trained on this data, else the released ones."""
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"weights={folder}: no such folder")
        return runs.Shelf(Path(folder))
    trained = runs.Shelf(Path(runs_folder) / data)
    return runs.Shelf(runs.released() / data) if trained.is_empty() else trained


def load(
    name: str, chosen, found: runs.Shelf, networks: dict, published: nn.Module | None = None, file: str | None = None
) -> Defence:
    """The defence of that name; `chosen` has its title, and as purifier and classifier a kind of run or a weights file.

    `published` (from `file`) stands in for the classifier that would have been trained. FileNotFoundError, in one line
    with the remedy, where weights are not there.
    """
    parts, modules = {}, {}
    for role, wanted in (("classifier", chosen.classifier), ("purifier", chosen.purifier)):
        if wanted == "classifier" and published is not None:
            parts[role], modules[role] = Path(file), published
        elif wanted is not None:
            parts[role] = _path(name, role, wanted, found, networks)
            modules[role] = weights.load(parts[role])
    for role, known in (("classifier", CLASSIFIERS), ("purifier", AUTOENCODERS)):
        if role in modules and modules[role].config["name"] not in known:
            holds = modules[role].config["name"]
            raise ValueError(f"defence.{name}.{role}={parts[role]}: holds a {holds}; allowed are {', '.join(known)}")
    module = Defended(modules.get("purifier"), modules["classifier"]).eval()
    about = " behind ".join(f"{part.config['name']} (stage {part.header['stage']})" for part in modules.values())
    return Defence(
        name, chosen.title, module, [_shown(path) for path in parts.values()], weights.fingerprint(module), about
    )


def tuned_to_another(defence: Defence) -> str | None:
    """A sentence where the purifier was tuned through another classifier than the one it stands before."""
    header = getattr(defence.module.purifier, "header", {})
    tuned_to = header.get("classifier")
    if tuned_to in (None, defence.module.classifier.header["fingerprint"]):
        return None
    return (
        f"{defence.title}: its purifier was tuned to another classifier ({tuned_to[:12]}) than the one it stands "
        f"before here ({defence.module.classifier.header['fingerprint'][:12]})"
    )


def _path(name: str, role: str, wanted: str, found: runs.Shelf, networks: dict[str, Any]) -> str | Path:
    if wanted in runs.KINDS.values():
        path = found.path(wanted, **networks)
        if not path.is_file():
            stage = next(stage for stage, kind in runs.KINDS.items() if kind == wanted)
            raise FileNotFoundError(f"{name}: no weights at {path}; `python train.py stage={stage}` makes them")
        return path
    if remote.is_address(wanted):
        return wanted
    path = Path(wanted)
    if not path.is_file():
        raise ValueError(
            f"defence.{name}.{role}={wanted}: neither a weights file nor one of {', '.join(runs.KINDS.values())}"
        )
    return path


def _shown(path: str | Path) -> str:
    """The path as a reader of the result can use it: from the working folder where it lies below that."""
    if remote.is_address(path):
        return str(path)
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
