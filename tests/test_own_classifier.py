"""A user's own classifier in a package of its own: both stages are trained in front of it and it is evaluated."""

import sys

import pytest
import tiny
import torch
from tiny import TINY, evaluate, train

from s2snet.models import build
from s2snet.store import weights

SOURCE = """
from torch import nn
from .layers import block

def build(width):
    return nn.Sequential(block(1, width), block(width, 2 * width), nn.Flatten(), nn.Linear(32 * width, 10))
"""
LAYERS = """
from torch import nn

def block(inside, outside):
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2))
"""
OWN = ["classifier=custom", "classifier.target=foreign_nets.small:build", "classifier.options={width: 6}"]
FEW = [f"recipes.{name}.epochs={epochs}" for name, epochs in (("classifier", 4), ("stage1", 2), ("stage2", 1))]
ATTACK = ["defence=[none,s2snet]", "attack=[fgsm]", "budgets.linf=[8/255]", "images=30", "samples=0", "output=out"]
SHORT = ["threat.white_box.routes=[exact]"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package `foreign_nets` in the working folder."""
    monkeypatch.setattr(tiny, "TINY", [word for word in TINY if not word.startswith("classifier.")])
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "foreign_nets").mkdir()
    for name, source in (("__init__", ""), ("small", SOURCE), ("layers", LAYERS)):
        (tmp_path / f"foreign_nets/{name}.py").write_text(source)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "foreign_nets"]:
        del sys.modules[name]


def test_all_stages_and_an_evaluation_in_front_of_it(package):
    path = train("stage=classifier", "recipes.classifier.lr=0.02", *OWN, *FEW)
    assert str(path) == "runs/digits/classifier-foreign_nets.small.build/weights.safetensors"
    header = weights.read_header(path)
    assert header["module"]["target"] == "foreign_nets.small:build" and header["metrics"]["accuracy"] > 0.5
    train("stage=1", *OWN, *FEW)
    tuned = train("stage=2", *OWN, *FEW)
    assert str(tuned) == "runs/digits/s2snet-segnet_small-foreign_nets.small.build/weights.safetensors"
    assert weights.read_header(tuned)["classifier"] == header["fingerprint"]
    folder, lines = evaluate(*OWN, *ATTACK, *SHORT, explicit=True)
    assert f"Undefended classifier: {path}" in lines
    assert (folder / "table.csv").read_text().count("s2snet,") >= 3
    with pytest.raises(ValueError, match=r"loading it runs the code 'foreign_nets.small:build'"):
        evaluate(*ATTACK, "classifier.widths=[8,16]", f"defence.none.classifier={path}", explicit=True)
    with pytest.raises(ValueError, match=r"expected options=\{'width': 7\}, got \{'width': 6\}"):
        evaluate(*OWN[:2], "classifier.options={width: 7}", *ATTACK, explicit=True)


def test_what_the_target_returns_is_taken_where_nothing_was_trained(package, capfd):
    torch.manual_seed(1)
    torch.save(build("custom", target="foreign_nets.small:build", options={"width": 6}).network.state_dict(), "own.pth")
    given = [*OWN, "classifier.weights=own.pth"]
    train("stage=1", *OWN, *FEW)
    train("stage=2", *given, *FEW)
    assert "classifier: own.pth (stage published, fingerprint " in capfd.readouterr().err
    _, lines = evaluate(*given, *ATTACK, *SHORT, explicit=True)
    assert "Undefended classifier: own.pth" in lines
    assert not [line for line in lines if "tuned to another classifier" in line]
    _, lines = evaluate(*OWN, *ATTACK, *SHORT, explicit=True)
    assert "Undefended classifier: foreign_nets.small:build as it is built" in lines
    assert [line for line in lines if "tuned to another classifier" in line]  # this one's weights are others
