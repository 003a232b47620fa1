"""The defences of an evaluation: which weights each is made of, found by name or given as files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from s2snet.config.evaluation import DefenceChoice
from s2snet.config.networks import Networks
from s2snet.models import CLASSIFIERS, PURIFIERS, Defended
from s2snet.store import networks, paths, remote, weights


@dataclass
class Defence:
    """A named classifier that may be robust, ready to be attacked and to judge."""

    name: str
    title: str
    module: Defended
    files: list[str]
    fingerprint: str
    about: str


def shelf(folder: str | None, runs_folder: str, data: str) -> paths.Shelf:
    """Where weights are looked up: the folder given, else what was trained on this data, else the released ones."""
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"weights={folder}: no such folder")
        return paths.Shelf(Path(folder))
    trained = paths.Shelf(Path(runs_folder) / data)
    return paths.Shelf(paths.released() / data) if trained.is_empty() else trained


def load(
    name: str,
    chosen: DefenceChoice,
    found: paths.Shelf,
    config: Networks,
    classifier: Callable[[], tuple[nn.Module, str]],
) -> Defence:
    """The defence of that name; `chosen` has its title, and as purifier and classifier a kind of run or a weights file.

    `classifier` gives the classifier of the config and where it comes from. FileNotFoundError, in one line
    with the remedy, where weights are not there.
    """
    parts, modules = {}, {}
    if chosen.classifier == "classifier":
        try:
            modules["classifier"], parts["classifier"] = classifier()
        except FileNotFoundError as missing:
            raise FileNotFoundError(f"{name}: {missing}") from None
    else:
        path = _path(name, "classifier", chosen, found, config)
        parts["classifier"] = str(path)
        modules["classifier"] = networks.load_classifier(path, config.classifier)
    if chosen.purifier is not None:
        path = _path(name, "purifier", chosen, found, config)
        parts["purifier"], modules["purifier"] = str(path), networks.load_autoencoder(path, config)
    for role, known in (("classifier", CLASSIFIERS), ("purifier", PURIFIERS)):
        if role in modules and modules[role].config["name"] not in known:
            holds = modules[role].config["name"]
            raise ValueError(f"defence.{name}.{role}={parts[role]}: holds a {holds}; allowed are {', '.join(known)}")
    module = Defended(modules.get("purifier"), modules["classifier"]).eval()
    about = " behind ".join(f"{paths.network_name(part.config)} ({_made_in(part.header)})" for part in modules.values())
    return Defence(
        name, chosen.title, module, [_shown(source) for source in parts.values()], weights.fingerprint(module), about
    )


def _made_in(header: dict) -> str:
    return f"stage {header['stage']}" if "stage" in header else f"study {header['study']}"


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


def _path(name: str, role: str, chosen: DefenceChoice, found: paths.Shelf, config: Networks) -> str | Path:
    wanted = getattr(chosen, role)
    if wanted in paths.KINDS.values():
        path = found.path(wanted, config.classifier, config.autoencoder)
        if not path.is_file():
            stage = next(stage for stage, kind in paths.KINDS.items() if kind == wanted)
            raise FileNotFoundError(f"{name}: no weights at {path}; `python train.py stage={stage}` makes them")
        return path
    if remote.is_address(wanted):
        return wanted
    path = Path(wanted)
    if not path.is_file() and role == "purifier" and chosen.produced_by:
        raise FileNotFoundError(f"{name}: no weights at {path}; `{chosen.produced_by}` makes them")
    if not path.is_file():
        raise ValueError(
            f"defence.{name}.{role}={wanted}: neither a weights file nor one of {', '.join(paths.KINDS.values())}"
        )
    return path


def _shown(source: str) -> str:
    """A file as a reader of the result can use it: from the working folder where it lies below that."""
    if not Path(source).is_file():
        return source
    path = Path(source).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
