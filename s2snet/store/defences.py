"""Find the defences of a command: each a purifier and a classifier, by name, from weights files or without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

from s2snet.config.analysis import AnalyseCommand
from s2snet.config.choices import choose
from s2snet.config.evaluation import DefenceChoice, EvaluateCommand, Purifier
from s2snet.config.networks import Networks
from s2snet.data import Splits
from s2snet.models import CLASSIFIERS, PURIFIERS, Defended, build
from s2snet.models.check_input import check_input
from s2snet.store import networks, paths, remote, weights

Part = tuple[nn.Module, str]  # a network in eval mode with its `.header`, and where it comes from


@dataclass
class Defence:
    """A named classifier, with or without a purifier, ready to be attacked and to judge."""

    name: str
    title: str
    module: Defended
    files: list[str]
    fingerprint: str
    about: str


def find(
    config: EvaluateCommand | AnalyseCommand,
    splits: Splits,
    explicit: bool,
    notes: list[str],
    say: Callable[[str], None],
) -> list[Defence]:
    """Return the defences that a command names, checked against the data; add what a reader must know to `notes`.

    A defence without weights is left out with a note. If the user named the defences (`explicit`), it raises
    FileNotFoundError instead.
    """
    shelf = find_shelf(config.weights, config.runs, config.data.name)

    def note(text: str) -> None:
        notes.append(text)
        say(f"note: {text}")

    @cache
    def classifier() -> Part:
        return networks.find_classifier(config, shelf, note)

    defences = []
    for name, choice in config.defence.items():
        try:
            defence = load(name, choice, shelf, config, classifier)
        except FileNotFoundError as missing:
            if explicit:
                raise
            notes.append(f"Left out: {missing}")
            say(f"left out: {missing}")
            continue
        say(f"{defence.title}: {', '.join(defence.files)}")
        mismatch = tuned_to_another(defence)
        if mismatch:
            note(mismatch)
        defences.append(defence)
    if not defences:
        raise ValueError(f"no weights in {shelf.folder}; `python train.py stage=classifier` makes the first")
    for defence in defences:
        _check_input_header(defence, config)
    for defence in defences:
        size = config.data.channels, config.data.size
        check_input(defence.module, f"defence {defence.name}", *size)
        check_input(defence.module.classifier, f"the classifier of {defence.name}", *size, len(splits.test.classes))
    return defences


def find_shelf(folder: str | None, runs_folder: str, data: str) -> paths.Shelf:
    """Return where weights are looked up: the given folder, else those trained on this data, else the released ones."""
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"weights={folder}: no such folder")
        return paths.Shelf(Path(folder))
    trained = paths.Shelf(Path(runs_folder) / data)
    return paths.Shelf(paths.released() / data) if trained.is_empty() else trained


def load(
    name: str, choice: DefenceChoice, shelf: paths.Shelf, config: Networks, classifier: Callable[[], Part]
) -> Defence:
    """Return the defence of that name. `classifier` returns the classifier that the command names.

    Raises FileNotFoundError, in one line with the remedy, if weights are missing.
    """
    if choice.classifier == "classifier":
        try:
            parts = {"classifier": classifier()}
        except FileNotFoundError as missing:
            raise FileNotFoundError(f"{name}: {missing}") from None
    else:
        path = _path(name, "classifier", choice, shelf, config)
        parts = {"classifier": (networks.load_classifier(path, config.classifier), str(path))}
    if isinstance(choice.purifier, Purifier):
        parts["purifier"] = _without_weights(f"defence.{name}.purifier", choice.purifier, config)
    elif choice.purifier is not None:
        path = _path(name, "purifier", choice, shelf, config)
        parts["purifier"] = networks.load_autoencoder(path, config), str(path)
    for role, known in (("classifier", CLASSIFIERS), ("purifier", PURIFIERS)):
        if role in parts and parts[role][0].config["name"] not in known:
            holds, source = parts[role][0].config["name"], parts[role][1]
            raise ValueError(f"defence.{name}.{role}={source}: holds a {holds}; allowed are {', '.join(known)}")
    modules = {role: module for role, (module, _) in parts.items()}
    module = Defended(modules.get("purifier"), modules["classifier"]).eval()
    return Defence(
        name,
        choice.title or name,
        module,
        [_shown(source) for _, source in parts.values()],
        weights.fingerprint(module),
        " behind ".join(_described(part) for part in modules.values()),
    )


def _without_weights(name: str, purifier: Purifier, config: Networks) -> Part:
    """Return a purifier that is built from its name and options alone. Raises ValueError if it would need weights."""
    choose(f"{name}.name", purifier.name, PURIFIERS)
    try:
        module = build(**purifier.config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: {error}") from None
    if module.state_dict():
        raise ValueError(f"{name}.name={purifier.name}: has weights; give a weights file, {name}=FILE")
    options = ", ".join(f"{key}={value}" for key, value in module.config.items() if key != "name")
    module = weights.with_header(module, "built", config.data.channels, config.data.size)
    return module, f"{purifier.name}({options})"


def _described(part: nn.Module) -> str:
    """Return a network's name and, if its header tells, the stage or study that produced it."""
    produced = [f"{key} {part.header[key]}" for key in ("stage", "study") if key in part.header][:1]
    return " ".join([paths.network_name(part.config), *(f"({text})" for text in produced)])


def _check_input_header(defence: Defence, config: Networks) -> None:
    """Raise ValueError if the classifier's header names another input than the data have."""
    shape = defence.module.classifier.header.get("input", {})
    for key, value in (("channels", config.data.channels), ("size", config.data.size)):
        if shape.get(key, value) != value:
            raise ValueError(f"defence {defence.name} was trained on data.{key}={shape[key]}; here it is {value}")


def tuned_to_another(defence: Defence) -> str | None:
    """Return a sentence if the purifier was tuned to another classifier than the one behind it."""
    tuned_to = getattr(defence.module.purifier, "header", {}).get("classifier")
    behind = defence.module.classifier.header["fingerprint"]
    if tuned_to in (None, behind):
        return None
    return (
        f"{defence.title}: its purifier was tuned to another classifier ({tuned_to[:12]}) than the one behind it here "
        f"({behind[:12]})"
    )


def _path(name: str, role: str, choice: DefenceChoice, shelf: paths.Shelf, config: Networks) -> str | Path:
    given = getattr(choice, role)
    if given in paths.KINDS.values():
        path = shelf.path(given, config.classifier, config.autoencoder)
        if not path.is_file():
            stage = next(stage for stage, kind in paths.KINDS.items() if kind == given)
            raise FileNotFoundError(f"{name}: no weights at {path}; `python train.py stage={stage}` makes them")
        return path
    if remote.is_address(given):
        return given
    path = Path(given)
    if not path.is_file() and role == "purifier" and choice.produced_by:
        raise FileNotFoundError(f"{name}: no weights at {path}; `{choice.produced_by}` makes them")
    if not path.is_file():
        raise ValueError(
            f"defence.{name}.{role}={given}: expected a weights file or one of {', '.join(paths.KINDS.values())}"
            + (f"; a purifier without weights is written {{name: {given}}}" if given in PURIFIERS else "")
        )
    return path


def _shown(source: str) -> str:
    """Return a file's path relative to the working folder if it is below that."""
    if not Path(source).is_file():
        return source
    path = Path(source).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
