"""Every YAML of conf/ composes, and the names there are the names in the code."""

import inspect
import json
from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from tiny import composed

from s2snet import analysis, models
from s2snet.attacks import ATTACKS, UNIVERSAL, VARIANTS
from s2snet.cli import settings as cli_settings
from s2snet.cli.conf_dir import conf_dir
from s2snet.cli.messages import LISTS
from s2snet.data import DATA
from s2snet.evaluation.cells import _GIVEN
from s2snet.threats import ROUTES, THREATS

CHOICES = sorted((path.parent.name, path.stem) for path in conf_dir().glob("*/*.yaml"))
ONLY = {  # groups that not every command has
    "recipe": {"train"},
    "logger": {"train"},
    "attack": {"evaluate"},
    "threat": {"evaluate"},
    "defence": {"evaluate", "analyse"},
    "study": {"analyse"},
}
SETTINGS = {
    "train": cli_settings.train_settings,
    "evaluate": cli_settings.evaluate_settings,
    "analyse": cli_settings.analyse_settings,
}
SHORTCUTS = {  # files that give options of another choice a name
    "classifier": {"alexnet", "inception_v3", "resnet50", "squeezenet1_1", "vgg16"},
    "attack": set(VARIANTS),
}


def names(group: str) -> set[str]:
    return {choice for in_group, choice in CHOICES if in_group == group}


def checked(script: str, *words: str):
    return SETTINGS[script](composed(script, *words))


def test_every_experiment_begins_with_its_command():
    for name in names("experiment"):
        text = (conf_dir() / "experiment" / f"{name}.yaml").read_text()
        assert any(f"#   python {script}.py " in text for script in SETTINGS), name


@pytest.mark.parametrize("group, choice", CHOICES)
def test_every_choice_of_every_group_composes(group, choice):
    for script in SETTINGS:
        if group == "experiment" and f"python {script}.py" not in (conf_dir() / group / f"{choice}.yaml").read_text():
            continue
        if script not in ONLY.get(group, SETTINGS):
            continue
        if group == "recipe":
            stage = choice.partition("_")[0]  # stage2_adversarial is another recipe for stage 2
            words = [f"recipe@recipes.{stage}={choice}", f"stage={stage.removeprefix('stage')}"]
        else:
            words = [f"{group}=[{choice}]" if group in LISTS else f"{group}={choice}"]
        if script == "analyse" and choice == "ddp_cpu":  # a study runs in one process
            continue
        if script == "analyse" and group != "study":
            words.extend([] if group == "experiment" else ["study=[gradients]"])  # an experiment names its own
        settings = checked(script, *words)
        if group in LISTS:
            assert list(getattr(settings, group)) == [choice]
        elif group not in ("experiment", "hydra", "recipe", "trainer"):
            chosen = getattr(settings, group)
            assert choice in (chosen.name, getattr(chosen, "options", {}).get("arch"))


def test_every_file_is_a_choice_of_a_known_group():
    assert {group for group, _ in CHOICES} <= {
        "attack", "autoencoder", "classifier", "data", "defence", "experiment", "hydra", "logger", "recipe",
        "study", "threat", "trainer",
    }  # fmt: skip
    assert {path.stem for path in conf_dir().glob("*.yaml")} == set(SETTINGS)
    assert len(CHOICES) == len([path for path in conf_dir().rglob("*.yaml") if path.parent != conf_dir()])


@pytest.mark.parametrize(
    "group, registry",
    [
        ("attack", {**ATTACKS, **UNIVERSAL}),
        ("data", DATA),
        ("classifier", models.CLASSIFIERS),
        ("autoencoder", models.AUTOENCODERS),
        ("threat", THREATS),
        ("study", analysis.STUDIES),
    ],
)
def test_folders_and_registries_are_equal(group, registry):
    assert names(group) - SHORTCUTS.get(group, set()) == set(registry)


def test_routes_of_the_white_box_are_all_routes_but_the_dear_one():
    text = (conf_dir() / "threat" / "white_box.yaml").read_text()
    assert {*OmegaConf.create(text).routes, "smoothed"} == set(ROUTES)
    assert "- smoothed: " in text  # and it says so


@pytest.mark.parametrize("name", [*ATTACKS, *UNIVERSAL])
def test_an_attacks_file_has_its_options_and_defaults(name):
    given = OmegaConf.to_container(OmegaConf.load(conf_dir() / "attack" / f"{name}.yaml"))
    assert given.pop("name") == name
    parameters = inspect.signature({**ATTACKS, **UNIVERSAL}[name]).parameters
    assert name == "least_likely" or name in UNIVERSAL or given.pop("targets") is None  # the engine's option
    assert given == {key: parameter.default for key, parameter in parameters.items() if key not in _GIVEN}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variants_file_is_its_attack_with_its_options(name):
    attack, options = VARIANTS[name]
    of_attack = checked("evaluate", f"attack=[{attack}]").attack[attack]
    changed = {**of_attack.options, **options}
    assert checked("evaluate", f"attack=[{name}]").attack == {name: replace(of_attack, options=changed)}
    assert any(of_attack.options[option] != value for option, value in options.items())


@pytest.mark.parametrize("name", analysis.STUDIES)
def test_a_studys_file_has_its_options_and_defaults(name):
    path = conf_dir() / "study" / f"{name}.yaml"
    assert path.read_text().startswith(f"# @package study.{name}\n")
    given = OmegaConf.to_container(OmegaConf.load(path))
    assert given.pop("name") == name
    parameters = inspect.signature(analysis.load(name, "study").run).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items() if key != "bench"}
    assert given == json.loads(json.dumps(defaults))  # a tuple is a list in YAML


@pytest.mark.parametrize("group, registry", [("classifier", models.CLASSIFIERS), ("autoencoder", models.AUTOENCODERS)])
def test_a_networks_file_has_all_its_options(group, registry):
    for name, network in registry.items():
        given = getattr(checked("train", f"{group}={name}"), group)
        assert set(given.options) == set(inspect.signature(network).parameters)
        if name not in ("segnet", "torchvision", "timm", "custom"):  # a second to make; or they need a name first
            assert models.build(**given.config).config == given.config


def test_shortcuts_are_torchvisions_networks():
    for name in SHORTCUTS["classifier"]:
        of_any = checked("train", "classifier=torchvision").classifier.options
        assert checked("train", f"classifier={name}").classifier.options == {**of_any, "arch": name}


def test_the_full_segnet_is_the_authors():
    import torch

    with torch.device("meta"):
        segnet = models.build(**checked("train", "autoencoder=segnet", "data.channels=3").autoencoder.config)
    assert sum(parameter.numel() for parameter in segnet.parameters()) == 29_480_259


def test_the_split_is_a_fact_in_the_config():
    text = (conf_dir() / "data" / "digits.yaml").read_text()
    facts = checked("train").data.options
    assert (facts["test_every"], facts["validation_every"]) == (5, 10)
    for number in ("360", "1,437", "144"):
        assert number in text


def test_no_python_is_named_in_the_configuration():
    """Hydra composes and builds nothing: no _target_, no interpolated time."""
    for path in conf_dir().rglob("*.yaml"):
        text = path.read_text()
        assert "_target_" not in text, path
        assert "${now" not in text, path
