"""Define all settings of `python evaluate.py`, and in `Evaluation` those that `s2snet.evaluate` takes too."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from s2snet.config.choices import choose
from s2snet.config.networks import Choice, Networks
from s2snet.config.option import check, option
from s2snet.config.pixels import Pixels, linf, pixels
from s2snet.config.runtime import Trainer

NORMS = ("linf", "l2", "l1")


@dataclass
class Attack(Choice):
    """An attack of s2snet.attacks and its options, as in conf/attack/NAME.yaml; `targets` is the engine's own."""


@dataclass
class Threat:
    """The attacker's knowledge; a threat of s2snet.threats.THREATS reads the options that it needs."""

    name: str = option(help="of the threat")
    routes: list[str] = option(
        ["exact", "identity", "soft", "learned", "affine", "eot"], help="how gradients pass through a purifier"
    )
    temperature: float = option(
        0.1, above=0, help="of soft: in units of the pooled activations, or in deviations of the map behind a mask"
    )
    fit_steps: int = option(300, at_least=1, help="of learned and affine")
    smoothing: float = option(0.05, above=0, help="standard deviation of smoothed's noise, pixels in [0, 1]")
    draws: int = option(8, at_least=1, help="passes that smoothed and eot average over")
    sources: list[str] | None = option(None, help="of transfer: names of defences; null takes all")


@dataclass
class Purifier(Choice):
    """A purifier of s2snet.models.PURIFIERS without weights and its options, such as {name: bit_depth, bits: 3}."""


def _purifier(name: str, given: Any) -> str | Purifier | None:
    """Return a purifier given as a mapping in its final form, and anything else as it is."""
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return Purifier.of(given)
    if given is None or isinstance(given, str | Purifier):
        return given
    raise ValueError(
        f"{name}={given}: expected a kind of run, a weights file, or a purifier such as {{name: bit_depth, bits: 3}}"
    )


@dataclass
class DefenceChoice:
    """A defence: a classifier, with or without a purifier in front of it."""

    title: str | None = option(None, help="of the defence, in tables and figures; null: its name")
    purifier: Any = option(
        None,
        parse=_purifier,
        help="a kind of run (autoencoder, s2snet), a weights file, hf://user/repo/file, or {name: ..., OPTION: ...} "
        "for a purifier without weights; null: none",
    )
    classifier: str = option("classifier", help="a kind of run (classifier, adversarial) or a weights file")
    produced_by: str | None = option(None, help="the command that produces the purifier's file")


def _budgets(name: str, given: dict[str, list[Pixels]]) -> dict[str, list[float]]:
    """Return the radii of each norm as numbers, each once."""
    budgets = {}
    for norm, radii in given.items():
        choose(f"{name}' norm", norm, NORMS)
        parse = linf if norm == "linf" else pixels
        budgets[norm] = list(dict.fromkeys(parse(f"{name}.{norm}", eps) for eps in radii))
    return budgets


def _seeds(name: str, given: Any) -> list[int]:
    """Return one or several seeds as a list, each once."""
    seeds = list(given) if isinstance(given, list | tuple) else [given]
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"{name}={seeds}: an integer, or several such as [0,1,2]")
    return list(dict.fromkeys(seeds))


def _files(name: str, given: Any) -> list[str]:
    """Return no, one or several paths as a list."""
    return [str(path) for path in (given if isinstance(given, list | tuple) else [given]) if path is not None]


def _switch(name: str, value: Any) -> str:
    """Return the word, also for YAML's off (false) and on (true)."""
    word = str(value).lower()
    return {"false": "off", "true": "quick"}.get(word, word)


@dataclass(kw_only=True)
class Evaluation:
    """The settings of an evaluation, from the command line or from Python: attacks, threats, budgets, images."""

    threat: dict[str, Threat] = option({}, help="what the attacker knows, by label")
    attack: dict[str, Attack] = option({}, help="the attacks, by label")
    budgets: dict[str, list[Pixels]] = option(
        {"linf": [8 / 255]}, parse=_budgets, help="radii in [0, 1] pixel units, per norm"
    )
    images: int | None = option(None, at_least=1, help="how many of the test images, from the first; null takes all")
    adversarial: Any = option(
        None,
        parse=_files,
        help="file or files of adversarial images from elsewhere (.safetensors, .npz, .pt), judged with the rest",
    )
    chunk: int = option(360, at_least=1, help="images crafted at once, and what a crash costs of one cell")
    keep: str | None = option(
        None,
        choices=("all", "sample", "none"),
        help="adversarial images kept on disk: all, sample (what the report shows), none; null: all up to 10,000",
    )
    samples: int = option(12, at_least=0, help="images that the report's explorer shows")
    fast: bool = option(
        True,
        help="craft on a copy with BatchNorm folded into the convolutions; the untouched network gives every verdict",
    )
    audit: str = option(
        "quick",
        choices=("off", "quick", "full"),
        parse=_switch,
        help="off, quick, full: how much is probed for the verdict next to each number; full attacks more",
    )
    seed: Any = option(0, parse=_seeds, help="of random starts; several, such as [0,1,2], give the mean and the spread")
    trainer: Trainer = option(Trainer, help="devices")


def evaluation_of(
    attacks: Iterable[str] | Mapping[str, Mapping[str, Any]],
    threats: Iterable[str] | Mapping[str, Mapping[str, Any]],
    **options: Any,
) -> Evaluation:
    """Return the checked Evaluation of attacks and threats given as names or as {label: options}.

    An option that is None stands for its default. Raises ValueError, in one line, for an unknown or invalid option.
    """
    options = {key: value for key, value in options.items() if value is not None}
    for key in options:
        choose("option", key, [item.name for item in fields(Evaluation) if item.name not in ("attack", "threat")])
    attack = {label: Attack.of({"name": label, **given}) for label, given in _labelled(attacks).items()}
    threat = {label: _threat(label, given) for label, given in _labelled(threats).items()}
    return check(Evaluation(attack=attack, threat=threat, **options))


def _labelled(given: Iterable[str] | Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    if isinstance(given, Mapping):
        return given
    return {name: {} for name in ([given] if isinstance(given, str) else given)}


def _threat(label: str, given: Mapping[str, Any]) -> Threat:
    for key in given:
        choose(f"option of threat {label}", key, [item.name for item in fields(Threat)])
    return Threat(**{"name": label, **{key: _list(value) for key, value in given.items()}})


def _list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(kw_only=True)
class EvaluateCommand(Evaluation, Networks):
    """One evaluation: which defences, found where, and what is done with the result."""

    defence: dict[str, DefenceChoice] = option({}, help="the defences, by name")
    strict: bool = option(False, help="exit status 1 if the audit fails")
    plan: bool = option(False, help="print cells, passes and minutes, and start nothing")
    weights: str | None = option(
        None, help="folder with weights; null takes runs/DATA if anything was trained, else the released ones"
    )
    output: str = option(help="the result folder")
    debug: bool = option(False, help="full tracebacks")

    def check_together(self, name: str) -> None:
        """ValueError, in one line, for settings that exclude each other."""
        if not self.defence:
            raise ValueError("defence=[]: at least one defence is needed, such as defence=[none]")
        if self.strict and self.audit == "off":
            raise ValueError("strict=true audit=off: without an audit nothing can fail; use audit=quick or full")
        if self.trainer.compile:
            raise ValueError("trainer.compile=true: only training compiles; an evaluation has fast=true")
