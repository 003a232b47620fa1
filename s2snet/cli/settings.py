"""Turn a config that Hydra composed into the checked dataclasses of s2snet/config.

Nothing below the command line sees a Hydra config. Imports no torch, so that a typo is reported at once.
"""

from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from s2snet.cli.conf_dir import conf_dir
from s2snet.cli.help import settings_help
from s2snet.cli.messages import BadInput
from s2snet.config.analysis import AnalyseCommand, Study
from s2snet.config.choices import check_key
from s2snet.config.evaluation import Attack, DefenceChoice, EvaluateCommand
from s2snet.config.networks import Autoencoder, Classifier, Data
from s2snet.config.option import check
from s2snet.config.training import TrainCommand

# Groups whose files have options of their own: mappings while Hydra composes, dataclasses afterwards.
ONE = {"data": Data, "classifier": Classifier, "autoencoder": Autoencoder}
SEVERAL = {"attack": Attack, "study": Study}
Command = TypeVar("Command", TrainCommand, EvaluateCommand, AnalyseCommand)


def _schema(command: type) -> type:
    """Return the dataclass of a command as Hydra merges the YAML into it."""
    names = [item.name for item in fields(command)]
    opened = [(name, dict[str, Any], field(default=MISSING)) for name in ONE]
    several = [*SEVERAL, "defence"]  # +defence.NAME.KEY=VALUE adds one, which OmegaConf refuses if its type is declared
    opened += [(name, dict[str, Any], field(default_factory=dict)) for name in several if name in names]
    return make_dataclass(command.__name__, opened, bases=(command,), kw_only=True)


def register() -> None:
    """Make the schemas and the help texts known to Hydra; the defaults lists of conf/ begin with a schema."""
    OmegaConf.register_new_resolver("settings_help", settings_help, replace=True)
    store = ConfigStore.instance()
    for name, command in (("train", TrainCommand), ("evaluate", EvaluateCommand), ("analyse", AnalyseCommand)):
        store.store(name=f"{name}_schema", node=_schema(command))


def train_settings(config: DictConfig) -> TrainCommand:
    """Return the checked settings of one training run."""
    return _command(TrainCommand, config)


def evaluate_settings(config: DictConfig) -> EvaluateCommand:
    """Return the checked settings of one evaluation."""
    return _command(EvaluateCommand, config)


def analyse_settings(config: DictConfig) -> AnalyseCommand:
    """Return the checked settings of one analysis."""
    if not config.study:
        known = sorted(path.stem for path in (conf_dir() / "study").glob("*.yaml"))
        raise BadInput(f"study=[]: expected study=NAME or study=[NAME,NAME]; allowed are {', '.join(known)}")
    return _command(AnalyseCommand, config)


def _command(kind: type[Command], config: DictConfig) -> Command:
    composed = OmegaConf.to_object(config)
    _known_keys(composed, "")
    settings = dict(vars(composed))
    for group, choice in ONE.items():
        settings[group] = _choice(choice, group, group, settings[group])
    for group, choice in SEVERAL.items():
        if group in settings:
            chosen = settings[group].items()
            settings[group] = {label: _choice(choice, f"{group}.{label}", group, one) for label, one in chosen}
    if "defence" in settings:
        settings["defence"] = {name: _defence(name, given) for name, given in settings["defence"].items()}
    return check(kind(**settings))


def _known_keys(node: Any, path: str) -> None:
    """ValueError for a key that no dataclass has: Hydra lets `+key=value` add it."""
    if is_dataclass(node):
        allowed = [item.name for item in fields(node)]
        for key in vars(node):
            check_key(path, key, allowed)
    for key, value in (vars(node) if is_dataclass(node) else node if isinstance(node, dict) else {}).items():
        _known_keys(value, f"{path}{key}.")


def _defence(name: str, given: Any) -> DefenceChoice:
    if not isinstance(given, Mapping):
        raise BadInput(f"defence.{name}={given}: expected keys of a defence, such as +defence.{name}.purifier=FILE")
    defence = DefenceChoice()
    vars(defence).update(given)
    _known_keys(defence, f"defence.{name}.")
    return defence


def _choice(kind: type, name: str, group: str, config: Mapping[str, Any]) -> Any:
    """Return the choice of a group; BadInput for a value of another type than the one in the group's file."""
    choice = kind.of({"name": name.rpartition(".")[2], **config})
    path = conf_dir() / group / f"{choice.name}.yaml"
    for key, default in (OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}).items():
        value = config.get(key, default)
        if not _alike(value, default):
            raise BadInput(f"{name}.{key}={value}: not of the same type as {default!r} in {group}/{path.name}")
    return choice


def _alike(value: Any, default: Any) -> bool:
    if default is None or (isinstance(default, str) and default.startswith("${")):
        return True
    if isinstance(default, list):
        return isinstance(value, list) and all(_alike(item, default[0]) for item in value)
    if isinstance(default, float) and isinstance(value, int):
        return not isinstance(value, bool)
    return type(value) is type(default)
