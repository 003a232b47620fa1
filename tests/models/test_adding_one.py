"""CONTRIBUTING.md's recipe for a purifier, followed in a copy of the checkout, without weights and with."""

import re
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

TINY = ["data.size=16", "trainer.accelerator=cpu", "trainer.progress=false", "autoencoder=linear"]
EPOCHS = [f"recipes.{stage}.epochs=1" for stage in ("classifier", "stage1", "stage2")]
FEW = ["images=12", "attack=[fgsm]", "budgets.linf=[8/255]", "threat.white_box.fit_steps=5", "audit=off", "samples=0"]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what a contributor edits."""
    for name in ("s2snet", "conf"):
        shutil.copytree(ROOT / name, tmp_path / "checkout" / name)
    for name in ("train.py", "evaluate.py"):
        shutil.copy(ROOT / name, tmp_path / "checkout")
    return tmp_path / "checkout"


def add(checkout: Path, name: str, source: str, registry: str, group: str, yaml: str) -> None:
    """Touch the three files that CONTRIBUTING.md names: the class, its line in the registry, its YAML."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (recipe,) = [line for line in text.splitlines() if line.startswith("| a purifier |")]
    for place in ("`s2snet/models/NAME.py`", f"`{registry}`", f"`conf/{group}/NAME.yaml`"):
        assert place in recipe
    (checkout / f"s2snet/models/{name}.py").write_text(source.lstrip())
    (checkout / f"conf/{group}/{name}.yaml").write_text(yaml)
    kind = re.search(r"class (\w+)", source)[1]
    path = checkout / "s2snet/models/__init__.py"
    before = path.read_text()
    after = re.sub(rf"^({registry} = .*{{)", rf'\1"{name}": {kind}, ', before, flags=re.MULTILINE)
    assert after.count(kind) == 1
    path.write_text(
        after.replace("\nCLASSIFIERS = {", f"\nfrom s2snet.models.{name} import {kind}\n\nCLASSIFIERS = {{")
    )


def run(checkout: Path, *words: str) -> None:
    done = run_python(*words, folder=checkout, PYTHONPATH=str(checkout))
    assert done.returncode == 0, done.stderr[-2000:]


def test_purifiers_without_weights_and_in_two_stages_take_three_files_each(checkout):
    yaml = "# @package defence.box_blur\ntitle: Box blur\npurifier: {name: box_blur, side: 3}\nclassifier: classifier\n"
    add(checkout, "box_blur", WITHOUT_WEIGHTS, "PURIFIERS", "defence", yaml)
    yaml = "# Two linear convolutions.\nname: linear\nchannels: ${data.channels}\nwidth: 8\n"
    add(checkout, "linear", IN_TWO_STAGES, "AUTOENCODERS", "autoencoder", yaml)
    run(checkout, "train.py", "-m", "stage=classifier,1,2", *TINY, *EPOCHS)
    run(checkout, "evaluate.py", "defence=[none,box_blur,s2snet]", *TINY, *FEW)
    table = read_table(checkout / "results/digits/table.csv")
    for defence in ("box_blur", "s2snet"):
        lines = [line for line in table if line["defence"] == defence]
        assert {line["threat"] for line in lines} >= {"clean", "gray_box", "white_box", "worst_case"}
        assert {line["route"] for line in lines} >= {"exact", "identity", "learned", "affine"}
        assert {line["status"] for line in lines} == {"done"}
    assert "Box blur" in (checkout / "results/digits/report.html").read_text()
    assert "linear" in (checkout / "results/digits/run.json").read_text()
