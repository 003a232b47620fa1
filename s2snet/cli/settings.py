"""The settings as frozen dataclasses: Hydra merges the YAML into them, so unknown keys and wrong types are refused.

Nothing below the command line sees a config object: `train_settings`, `evaluate_settings` and `analyse_settings`
return plain dataclasses, dicts, lists and numbers, checked across fields. No torch here: a typo costs no import.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from s2snet.cli.conf_dir import conf_dir
from s2snet.cli.messages import BadInput
from s2snet.config.choices import choose, nearest
from s2snet.config.recipe import MEASURED, check
from s2snet.config.runtime import Logger, Trainer

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
STAGES = ("classifier", "1", "2", "adversarial")


@dataclass
class Recipe:
    """How one stage is optimised. The YAML of each stage says what its own keys mean."""

    epochs: int = MISSING
    batch_size: int = MISSING
    optimiser: str = "adam"
    lr: float = MISSING
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "poly"
    clip: float | None = None
    accumulate: int = 1
    warmup: int = 0
    ema: float | None = None
    batch_norm: str = "train"
    shift: int = 0
    flip: bool = False
    scale: Any = None
    early_stopping: str | None = None
    patience: int = 10
    save_every: int | None = None


@dataclass
class ClassifierRecipe(Recipe):
    label_smoothing: float = 0.0


@dataclass
class Stage1Recipe(Recipe):
    pass


@dataclass
class Stage2Recipe(Recipe):
    labels: str = "truth"
    reconstruction_weight: float = 0.0
    cache: str = "none"


@dataclass
class AdversarialRecipe(Recipe):
    alpha: float = 0.5
    eps: Any = MISSING


@dataclass
class Recipes:
    classifier: ClassifierRecipe = field(default_factory=ClassifierRecipe)
    stage1: Stage1Recipe = field(default_factory=Stage1Recipe)
    stage2: Stage2Recipe = field(default_factory=Stage2Recipe)
    adversarial: AdversarialRecipe = field(default_factory=AdversarialRecipe)


@dataclass
class TrainSettings:
    stage: str = "1"  # a plain key: Hydra refuses an integer as the choice of a group
    seed: int = 0
    data: dict[str, Any] = MISSING
    classifier: dict[str, Any] = MISSING
    autoencoder: dict[str, Any] = MISSING
    recipes: Recipes = field(default_factory=Recipes)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    data_root: str | None = None
    runs: str = "runs"
    output: str | None = None
    from_classifier: str | None = None
    from_autoencoder: str | None = None
    from_vgg16: str | None = None
    ckpt_path: str | None = None
    overwrite: bool = False
    objective: str | None = None
    debug: bool = False
    published: ClassVar[str | None] = None  # classifier.weights, which is no part of the architecture

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of this run's stage, as a plain dict."""
        name = self.stage if self.stage in ("classifier", "adversarial") else f"stage{self.stage}"
        return dict(vars(getattr(self.recipes, name)))


@dataclass
class DefenceSettings:
    title: str = MISSING
    purifier: str | None = None
    classifier: str = MISSING
    made_by: str | None = None  # the command that leaves the purifier's file


@dataclass
class ThreatSettings:
    """What the attacker knows; the YAML of each threat has the keys that it reads."""

    name: str = MISSING
    routes: list[str] = field(default_factory=list)
    temperature: float = 0.1
    fit_steps: int = 300
    smoothing: float = 0.05
    draws: int = 8
    sources: list[str] | None = None


@dataclass
class EvaluateSettings:
    data: dict[str, Any] = MISSING
    classifier: dict[str, Any] = MISSING
    autoencoder: dict[str, Any] = MISSING
    defence: dict[str, DefenceSettings] = field(default_factory=dict)
    threat: dict[str, ThreatSettings] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=Trainer)
    budgets: dict[str, list[Any]] = field(default_factory=dict)
    images: int | None = None
    adversarial: Any = None
    chunk: int = 360
    keep: str | None = None
    samples: int = 12
    fast: bool = True
    audit: str = "quick"
    strict: bool = False
    seed: Any = 0
    plan: bool = False
    data_root: str | None = None
    weights: str | None = None
    runs: str = "runs"
    output: str = MISSING
    debug: bool = False
    published: ClassVar[str | None] = None  # likewise


@dataclass
class AnalyseSettings:
    data: dict[str, Any] = MISSING
    classifier: dict[str, Any] = MISSING
    autoencoder: dict[str, Any] = MISSING
    defence: dict[str, DefenceSettings] = field(default_factory=dict)
    study: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=Trainer)
    seed: int = 0
    data_root: str | None = None
    weights: str | None = None
    runs: str = "runs"
    output: str = MISSING
    debug: bool = False
    published: ClassVar[str | None] = None  # likewise


def register() -> None:
    """Makes the schemas known to Hydra; the defaults lists of conf/ begin with them."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainSettings)
    store.store(name="evaluate_schema", node=EvaluateSettings)
    store.store(name="analyse_schema", node=AnalyseSettings)


def train_settings(config: DictConfig) -> TrainSettings:
    """The checked settings of one training run."""
    settings: TrainSettings = _plain(config)
    _like_their_files(settings, ("data", "classifier", "autoencoder"))
    settings.published = settings.classifier.pop("weights", None)
    choose("stage", settings.stage, STAGES)
    check(settings.stage, settings.recipe)
    _where(settings.trainer)
    settings.trainer.sync_batchnorm = settings.trainer.sync_batchnorm.lower()  # YAML's true and false arrive as words
    choose("trainer.sync_batchnorm", settings.trainer.sync_batchnorm, ("auto", "true", "false"))
    choose("logger.name", settings.logger.name, ("csv", "wandb"))
    if settings.logger.pictures < 0:
        raise BadInput(f"logger.pictures={settings.logger.pictures}: a number of epochs, or 0 for none")
    if settings.objective is not None:
        choose("objective", settings.objective, MEASURED[settings.stage])
    settings.recipes.adversarial.eps = radius("recipes.adversarial.eps", settings.recipes.adversarial.eps, "linf")
    return settings


def _where(trainer: Trainer) -> None:
    """BadInput for what neither a training nor an evaluation can run on."""
    choose("trainer.precision", trainer.precision, PRECISIONS)
    for name, least in (("devices", 1), ("num_nodes", 1), ("workers", 0)):
        if getattr(trainer, name) < least:
            raise BadInput(f"trainer.{name}={getattr(trainer, name)}: at least {least}")


def evaluate_settings(config: DictConfig) -> EvaluateSettings:
    """The checked settings of one evaluation; budgets are numbers."""
    settings: EvaluateSettings = _plain(config)
    _like_their_files(settings, ("data", "classifier", "autoencoder"))
    settings.published = settings.classifier.pop("weights", None)
    for label, attack in settings.attack.items():
        _like_its_file(f"attack.{label}", attack, "attack")
    for name, least in (("images", 1), ("chunk", 1), ("samples", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise BadInput(f"{name}={value}: at least {least}")
    if not settings.defence:
        raise BadInput("defence=[]: at least one defence is needed, such as defence=[none]")
    settings.seed = settings.seed if isinstance(settings.seed, list) else [settings.seed]
    if not settings.seed or not all(type(seed) is int for seed in settings.seed):
        raise BadInput(f"seed={settings.seed}: an integer, or several such as [0,1,2]")
    settings.seed = list(dict.fromkeys(settings.seed))
    files = settings.adversarial
    settings.adversarial = [] if files is None else [str(f) for f in (files if isinstance(files, list) else [files])]
    if settings.keep is not None:
        choose("keep", settings.keep, ("all", "sample", "none"))
    settings.audit = {"false": "off", "true": "quick"}.get(settings.audit.lower(), settings.audit)  # YAML's off and on
    choose("audit", settings.audit, ("off", "quick", "full"))
    if settings.strict and settings.audit == "off":
        raise BadInput("strict=true audit=off: without an audit there is nothing to fail; audit=quick or full")
    _where(settings.trainer)
    if settings.trainer.compile:
        raise BadInput("trainer.compile=true: for training; an evaluation has fast=true")
    for label, threat in settings.threat.items():
        for name, least in (("draws", 1), ("fit_steps", 1), ("temperature", 0), ("smoothing", 0)):
            value = getattr(threat, name)
            if not value >= least or value == 0:
                raise BadInput(f"threat.{label}.{name}={value}: {'above 0' if least == 0 else 'at least 1'}")
    for norm, radii in settings.budgets.items():
        choose("budgets' norm", norm, ("linf", "l2", "l1"))
        settings.budgets[norm] = list(dict.fromkeys(radius(f"budgets.{norm}", eps, norm) for eps in radii))
    return settings


def analyse_settings(config: DictConfig) -> AnalyseSettings:
    """The checked settings of one analysis."""
    settings: AnalyseSettings = _plain(config)
    _like_their_files(settings, ("data", "classifier", "autoencoder"))
    settings.published = settings.classifier.pop("weights", None)
    known = sorted(path.stem for path in (conf_dir() / "study").glob("*.yaml"))
    if not settings.study:
        raise BadInput(f"which study? study=NAME, or study=[NAME,NAME]; there are {', '.join(known)}")
    for label, study in settings.study.items():
        _like_its_file(f"study.{label}", study, "study")
    _where(settings.trainer)
    if settings.trainer.devices * settings.trainer.num_nodes > 1:
        raise BadInput(f"trainer.devices={settings.trainer.devices}: a study runs in one process, on one device")
    return settings


def _plain(config: DictConfig) -> Any:
    """The config as dataclasses. Hydra lets `+key=value` add what no schema knows: refused here."""
    settings = OmegaConf.to_object(config)

    def check(node: Any, path: str) -> None:
        if is_dataclass(node):
            allowed = [item.name for item in fields(node)]
            for key, value in vars(node).items():
                if key not in allowed:
                    hint = nearest(key, allowed)
                    raise BadInput(f"unknown setting {path}{key}{hint}: allowed here are {', '.join(allowed)}")
                check(value, f"{path}{key}.")
        elif isinstance(node, dict):
            for key, value in node.items():
                check(value, f"{path}{key}.")

    check(settings, "")
    return settings


def _like_their_files(settings: Any, groups: tuple[str, ...]) -> None:
    for group in groups:
        _like_its_file(group, getattr(settings, group), group)


def _like_its_file(name: str, chosen: dict[str, Any], group: str) -> None:
    """BadInput for a value of another type than the one in the group's file, where that has one."""
    path = conf_dir() / group / f"{chosen.get('name')}.yaml"
    if not path.is_file():
        return
    for key, default in OmegaConf.to_container(OmegaConf.load(path)).items():
        value = chosen.get(key, default)
        if not _alike(value, default):
            raise BadInput(f"{name}.{key}={value}: not of the same type as {default!r} in {group}/{path.name}")


def _alike(value: Any, default: Any) -> bool:
    if default is None or (isinstance(default, str) and default.startswith("${")):
        return True
    if isinstance(default, list):
        return isinstance(value, list) and all(_alike(item, default[0]) for item in value)
    if isinstance(default, float) and isinstance(value, int):
        return not isinstance(value, bool)
    return type(value) is type(default)


def radius(name: str, value: Any, norm: str) -> float:
    """A radius in [0, 1] pixel units from a number or a text such as 8/255.

    BadInput for what is no number, is negative, or, in linf, is above 1: most likely meant in 1/255.
    """
    try:
        top, _, bottom = str(value).partition("/")
        eps = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        raise BadInput(f"{name}={value}: not a radius; write 8/255 or a number") from None
    if not 0 <= eps < float("inf"):
        raise BadInput(f"{name}={value}: a radius is at least 0")
    if norm == "linf" and eps > 1:
        raise BadInput(f"{name}={value}: radii are in [0, 1] pixel units (did you mean {eps:g}/255?)")
    return eps
