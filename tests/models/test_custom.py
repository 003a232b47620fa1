"""A user's own classifier: valid and invalid targets, and the code that a weights file may run."""

import sys
from pathlib import Path

import pytest
import torch

from s2snet.models import build
from s2snet.store import weights

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.head = nn.Linear(64, width)
        self.last = nn.Linear(width, 10)
    def forward(self, images):
        return self.last(self.head(images.flatten(1)).relu())

class Tuple(Net):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits

class Stays(Net):
    def train(self, mode=True):
        return super().train(True)

def number(): return 3
def fails(width=1): raise RuntimeError("no\\nway")
constant = 7
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module of a name of its own in the working folder; its name."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / f"broken_{name}.py").write_text("import nothing_of_this_name")
    (tmp_path / f"typo_{name}.py").write_text("def (")
    monkeypatch.setattr("sys.path", list(sys.path))
    return name


def test_a_target_of_the_working_folder_is_built_with_its_options(package):
    module = build("custom", target=f"{package}:Net", options={"width": 6})
    assert module.training and module.network.training and module.network.head.out_features == 6
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(module.eval()(images), module.network(images))
    assert module.config == {"name": "custom", "target": f"{package}:Net", "options": {"width": 6}, "classes": 10}


@pytest.mark.parametrize(
    "target, line",
    [
        ("None", "write my_package.my_module:function"),
        ("OWN", "write my_package.my_module:function"),
        ("../OWN:Net", "write my_package.my_module:function"),
        ("no_such_package.nets:Net", "no module no_such_package, here or installed"),
        ("OWN.nets:Net", "no module OWN.nets, here or installed"),
        (
            "broken_OWN:Net",
            "broken_OWN cannot be imported (ModuleNotFoundError: No module named 'nothing_of_this_name')",
        ),
        ("typo_OWN:Net", "typo_OWN cannot be imported (SyntaxError: "),
        ("OWN:Nett", "OWN has no function 'Nett'"),
        ("OWN:constant", "OWN has no function 'constant'"),
        ("OWN:number", "returned int, not a torch.nn.Module"),
        ("OWN:fails", "the call failed (RuntimeError: no way)"),
        ("OWN:Stays", "its module stays in training mode after .eval()"),
    ],
)
def test_a_bad_target_is_one_line(package, target, line):
    target = target.replace("OWN", package)
    with pytest.raises(ValueError) as error:
        build("custom", target=target)
    message = str(error.value)
    assert message.startswith(f"classifier.target={target}") and line.replace("OWN", package) in message
    assert "\n" not in message


def test_a_mistyped_name_has_its_nearest(package):
    with pytest.raises(ValueError, match=r"\(did you mean 'Tuple'\?\)"):
        build("custom", target=f"{package}:Tupel")


def test_an_option_that_the_function_lacks_is_one_line(package):
    with pytest.raises(ValueError, match=r"the call failed \(TypeError: .*depth"):
        build("custom", target=f"{package}:Net", options={"depth": 6})


def test_answers_that_are_no_logits_are_one_line(package):
    images = torch.rand(3, 1, 8, 8)
    module = build("custom", target=f"{package}:Net", classes=7).eval()
    with pytest.raises(ValueError, match=r"wrong shape in eval mode: expected logits \(3, 7\), got \(3, 10\)$"):
        module(images)
    module = build("custom", target=f"{package}:Tuple")
    assert module.eval()(images).shape == (3, 10)
    with pytest.raises(ValueError, match=r"wrong shape in training mode: expected logits \(3, 10\), got tuple$"):
        module.train()(images)


def test_a_weights_file_runs_only_the_code_that_the_caller_trusts(package, tmp_path):
    target = f"{package}:Net"
    module = build("custom", target=target).eval()
    weights.save(module, tmp_path / "own.safetensors")
    (tmp_path / f"{package}.py").write_text("open('ran', 'w')")
    sys.modules.pop(package)
    for trusted in (None, f"{package}:Other", f"{package}:Net "):
        with pytest.raises(ValueError) as error:
            weights.load(tmp_path / "own.safetensors", trusted=trusted)
        assert f"loading it runs the code '{target}'" in str(error.value) and "\n" not in str(error.value)
    assert not Path("ran").exists() and package not in sys.modules
    (tmp_path / f"{package}.py").write_text(SOURCE)
    again = weights.load(tmp_path / "own.safetensors", trusted=target)
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(images), module(images))


def test_a_network_with_a_part_called_module_takes_its_own_state_dict(package, tmp_path):
    Path(f"{package}.py").write_text(SOURCE + "\ndef parallel(): return nn.DataParallel(Net())")
    config = {"name": "custom", "target": f"{package}:parallel"}
    state = build(**config).network.state_dict()
    assert all(key.startswith("module.") for key in state)
    torch.save(state, tmp_path / "own.pth")
    assert torch.equal(weights.load_published("own.pth", **config).network.module.head.bias, state["module.head.bias"])


def test_a_state_dict_is_loaded_strictly(package, tmp_path):
    config = {"name": "custom", "target": f"{package}:Net"}
    state = build(**config).network.state_dict()
    torch.save(state, tmp_path / "own.pth")
    module = weights.load_published(tmp_path / "own.pth", **config)
    assert all(torch.equal(tensor, state[key]) for key, tensor in module.network.state_dict().items())
    torch.save({key: state[key] for key in list(state)[1:]}, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"3 of 4 tensors fit; missing: head.weight"):
        weights.load_published(tmp_path / "own.pth", **config)
