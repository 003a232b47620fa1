"""CONTRIBUTING.md's recipe for a purifier, followed in a copy of the checkout, without weights and with."""

import shutil
from pathlib import Path

import pytest
from tiny import ROOT, run_python

from s2snet.evaluation.scores import read_table

WITHOUT_WEIGHTS = '''
"""A purifier without weights: the mean over a square of pixels."""

from torch import Tensor, nn
from torch.nn import functional


class BoxBlur(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> the mean over `side` x `side` pixels around each."""

    def __init__(self, side: int = 3):
        super().__init__()
        if side < 1 or side % 2 == 0:
            raise ValueError(f"side={side}: expected an odd number")
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, self.side, 1, self.side // 2, count_include_pad=False)
'''

IN_TWO_STAGES = '''
"""A purifier trained in two stages: a linear convolution down and one up."""

from torch import Tensor, nn


class Linear(nn.Module):
    """Images [B, C, H, W] in [0, 1], of even sides -> images of the same shape."""

    def __init__(self, channels: int = 1, width: int = 8):
        super().__init__()
        self.encoder = nn.Conv2d(channels, width, 2, stride=2)
        self.decoder = nn.ConvTranspose2d(width, channels, 2, stride=2)

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decode(self, code: Tensor) -> Tensor:
        return self.decoder(code)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))
'''

TINY = ["data.size=16", "trainer.accelerator=cpu", "trainer.progress=false"]
FEW = ["images=12", "attack=[fgsm]", "budgets.linf=[8/255]", "threat.white_box.fit_steps=5", "audit=off", "samples=0"]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what a contributor edits."""
    for name in ("s2snet", "conf"):
        shutil.copytree(ROOT / name, tmp_path / "checkout" / name)
    for name in ("train.py", "evaluate.py"):
        shutil.copy(ROOT / name, tmp_path / "checkout")
    return tmp_path / "checkout"


def recipe() -> str:
    """The row of CONTRIBUTING.md that the tests follow."""
    (row,) = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| a purifier |")]
    return row


def add(checkout: Path, name: str, source: str, kind: str, registry: str, yaml: str, group: str) -> None:
    """Touch the three files of the recipe: the class, its line in the registry, its YAML."""
    for place in ("s2snet/models/NAME.py", f"`{registry}`", f"conf/{group}/NAME.yaml"):
        assert place in recipe()
    (checkout / f"s2snet/models/{name}.py").write_text(source.lstrip())
    (checkout / f"conf/{group}/{name}.yaml").write_text(yaml)
    path = checkout / "s2snet/models/__init__.py"
    text = path.read_text()
    first = {"PURIFIERS": "PURIFIERS = AUTOENCODERS | {", "AUTOENCODERS": "AUTOENCODERS = {"}[registry]
    assert text.count(first) == 1
    text = text.replace(first, f'{first}"{name}": {kind}, ')
    path.write_text(text.replace("\nCLASSIFIERS = {", f"\nfrom s2snet.models.{name} import {kind}\n\nCLASSIFIERS = {{"))


def lines(checkout: Path, defence: str) -> list[dict]:
    table = read_table(checkout / "results/digits/table.csv")
    return [line for line in table if line["defence"] == defence]


def run(checkout: Path, *words: str) -> None:
    done = run_python(*words, folder=checkout, PYTHONPATH=str(checkout))
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_purifier_without_weights(checkout):
    yaml = "# @package defence.box_blur\ntitle: Box blur\npurifier: {name: box_blur, side: 3}\nclassifier: classifier\n"
    add(checkout, "box_blur", WITHOUT_WEIGHTS, "BoxBlur", "PURIFIERS", yaml, "defence")
    run(checkout, "evaluate.py", "defence=[none,box_blur]", "classifier.weights=random", *TINY, *FEW)
    evaluated = lines(checkout, "box_blur")
    assert {line["threat"] for line in evaluated} >= {"clean", "gray_box", "white_box", "worst_case"}
    assert {line["route"] for line in evaluated} >= {"exact", "identity", "learned", "affine"}
    assert {line["status"] for line in evaluated} == {"done"}
    assert "Box blur" in (checkout / "results/digits/report.html").read_text()


def test_a_purifier_trained_in_two_stages(checkout):
    yaml = "# Two linear convolutions.\nname: linear\nchannels: ${data.channels}\nwidth: 8\n"
    add(checkout, "linear", IN_TWO_STAGES, "Linear", "AUTOENCODERS", yaml, "autoencoder")
    few = ["recipes.stage1.epochs=1", "recipes.stage2.epochs=1", "recipes.classifier.epochs=1"]
    run(checkout, "train.py", "-m", "stage=classifier,1,2", "autoencoder=linear", *TINY, *few)
    run(checkout, "evaluate.py", "autoencoder=linear", "defence=[none,s2snet]", *TINY, *FEW)
    evaluated = lines(checkout, "s2snet")
    assert {line["route"] for line in evaluated} >= {"exact", "identity", "learned", "affine"}
    assert {line["status"] for line in evaluated} == {"done"}
