"""One spelling per idea: signatures against the list of names (style.md 4), and against the YAML options."""

import ast
import inspect
import sys
from pathlib import Path

import pytest
import torch
import yaml
from linear_models import ATTACKS, Linear

import s2snet.attacks as package
from s2snet.attacks import LOSSES, UNIVERSAL

CONF = Path(__file__).parents[2] / "conf" / "attack"
ENGINE = ["norm", "noise", "targets", "leave_early", "passes"]  # given by the engine, not by YAML
# every option that an attack may have, with the one meaning it has in all of them
OPTIONS = {
    "steps": "most gradient steps of one run",
    "step_size": "length of a step, in pixels (cw: of an Adam step in tanh space)",
    "restarts": "runs from different starts",
    "random_start": "whether a run starts from a random point of the ball",
    "loss": "a name in LOSSES",
    "draws": "passes that a gradient is averaged over",
    "momentum": "share of the last move, or sum of gradients, in the next",
    "sparsity": "share of coordinates that a step in l1 moves",
    "rho": "share of rising steps below which a step size halves",
    "target_classes": "classes that an untargeted run aims at one by one",
    "searches": "steps of the search over a weight",
    "bisections": "halvings of the way back to the clean image",
    "overshoot": "how far beyond the boundary a step goes, as a share of it",
    "candidates": "classes besides the label that are looked at",
    "subspace": "orthonormal columns that a perturbation is confined to",
    "box": "whether images stay in [0, 1]",
    "kappa": "margin that counts as success",
    "cap": "loss above which an image pulls no more",
    "weight": "first weight of the loss relative to the distance",
    "abort_early": "whether a run that stands still ends",
    "gamma": "share by which the radius changes",
    "eps_start": "first radius",
    "area": "share of the pixels that the first squares cover",
}


def parameters(name):
    return inspect.signature(ATTACKS[name]).parameters


@pytest.mark.parametrize("name", ATTACKS)
def test_signatures_keep_the_one_spelling(name):
    known = parameters(name)
    assert list(known)[:3] == ["model", "images", "labels"]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in list(known.values())[:3])
    assert all(p.kind is p.KEYWORD_ONLY for p in list(known.values())[3:])
    assert set(ENGINE) <= set(known)
    assert ("eps" in known) == (not ATTACKS[name].minimal)
    assert set(known) <= {"model", "images", "labels", "eps", *ENGINE, *OPTIONS}
    assert known["norm"].default in ATTACKS[name].norms
    assert known["targets"].default is known["noise"].default is known["passes"].default is None
    assert known["leave_early"].default is False
    assert inspect.signature(ATTACKS[name]).return_annotation is torch.Tensor


@pytest.mark.parametrize("name", UNIVERSAL)
def test_a_universal_attack_keeps_the_spelling_too(name):
    attack = UNIVERSAL[name]
    known = inspect.signature(attack).parameters
    assert attack.__name__ == name and attack.__module__ == f"s2snet.attacks.{name}"
    assert list(known)[:2] == ["model", "batches"] and set(known) <= {"model", "batches", "eps", "norm", *OPTIONS}
    assert known["norm"].default in attack.norms and attack.version >= 1 and attack.random and not attack.minimal
    assert getattr(package, name) is attack and name in package.__all__
    assert attack.__doc__ and inspect.getmodule(attack).__doc__


def test_every_listed_option_is_somebodys():
    used = {option for name in ATTACKS for option in parameters(name)}
    used |= {option for attack in UNIVERSAL.values() for option in inspect.signature(attack).parameters}
    assert set(OPTIONS) <= used


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_a_function_of_its_name_in_the_file_of_its_name(name):
    attack = ATTACKS[name]
    assert inspect.isfunction(attack) and attack.__name__ == name
    assert attack.__module__ == f"s2snet.attacks.{name}"
    assert isinstance(attack.version, int) and attack.version >= 1
    assert isinstance(attack.minimal, bool)
    assert attack.norms and set(attack.norms) <= {"linf", "l2", "l1", "l0"}
    assert getattr(package, name) is attack and name in package.__all__
    assert attack.__doc__ and inspect.getmodule(attack).__doc__


@pytest.mark.parametrize("name", ATTACKS)
def test_the_yaml_holds_the_options_with_their_defaults(name):
    text = (CONF / f"{name}.yaml").read_text()
    lines = text.splitlines()
    assert lines[0] == f"# @package attack.{name}" and lines[1].startswith("# ")
    given = yaml.safe_load(text)
    assert next(iter(given)) == "name" and given.pop("name") == name
    # the engine chooses each image's target; least_likely has its own
    assert name == "least_likely" or given.pop("targets") is None
    assert list(given) == [option for option in parameters(name) if option in OPTIONS]
    for option, value in given.items():
        default = parameters(name)[option].default
        assert value == default and type(value) is type(default)
    if "loss" in given:
        assert given["loss"] in LOSSES


def test_every_yaml_of_a_gradient_attack_is_in_the_registry():
    """And the other way round; attacks that live elsewhere are not these tests' matter."""
    assert {name for name in ATTACKS if not (CONF / f"{name}.yaml").is_file()} == set()


def test_attacks_know_torch_and_nothing_above_them():
    for path in Path(package.__file__).parent.glob("*.py"):
        allowed = {"torch", *sys.stdlib_module_names} | ({"scipy"} if path.stem == "lbfgs" else set())
        for node in ast.walk(ast.parse(path.read_text())):
            for name in (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
            ):
                assert name.split(".")[0] in allowed or name.startswith("s2snet.attacks"), (path, name)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_yamls_options_run(name):
    given = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    given.pop("name")
    model = Linear(torch.eye(3, 8), torch.zeros(3))
    images = torch.full((2, 8), 0.4)
    images[0, 0] = images[1, 1] = 0.45
    eps = {} if ATTACKS[name].minimal else {"eps": 0.1}
    found = ATTACKS[name](model, images, torch.tensor([0, 1]), leave_early=True, **eps, **given)
    assert (model(found).argmax(dim=1) != torch.tensor([0, 1])).all()
