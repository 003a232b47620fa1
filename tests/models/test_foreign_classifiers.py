"""Classifiers of torchvision and timm: by name, normalisation inside, their published weights, plain logits."""

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from s2snet import torchvision_cpu
from s2snet.models import build, load_published, timm_weights, torchvision_weights
from s2snet.models.folded import folded
from s2snet.store import weights

torchvision_cpu.patch()
from torchvision import models as torchvision  # noqa: E402

REAL = Path(os.environ.get("S2SNET_DATA", "nowhere"))
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
NAMES = torchvision.list_models(module=torchvision)
SIDES = {
    "squeezenet1_1": 64,
    "mobilenet_v3_small": 64,
    "resnet18": 64,
    "alexnet": 63,
    "googlenet": 64,
    "inception_v3": 75,
}
INCEPTIONS = {"inception_v3": 75, "googlenet": 64}


@pytest.fixture(scope="module")
def network():
    """Each network once, with running statistics that are not the initial ones, in eval mode."""
    made = {}

    def get(arch: str):
        if arch not in made:
            torch.manual_seed(0)
            made[arch] = build("torchvision", arch=arch, classes=7)
            made[arch](torch.rand(4, 3, SIDES[arch], SIDES[arch]))
        return made[arch].eval()

    return get


@pytest.mark.parametrize("arch, side", SIDES.items())
def test_networks_give_logits_and_normalise_inside(network, arch, side):
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        logits = network(arch)(images)
        assert logits.shape == (2, 7) and logits.dtype == torch.float32
        torch.testing.assert_close(logits, network(arch).network((images - MEAN) / STD))


@pytest.mark.parametrize("arch, side", SIDES.items())
def test_the_copy_for_crafting_answers_alike(network, arch, side):
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        expected = network(arch)(images)
        copied = folded(network(arch), images)
        assert copied is not network(arch)
        torch.testing.assert_close(copied(images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("arch, side", INCEPTIONS.items())
def test_published_inceptions_answer_as_torchvisions_own(arch, side):
    """Their files hold auxiliary heads and are trained on inputs that torchvision makes with transform_input."""
    torch.manual_seed(0)
    theirs = torchvision.get_model(arch, aux_logits=True, transform_input=True, init_weights=True).eval()
    ours = build("torchvision", arch=arch)
    load_published(ours, theirs.state_dict())
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs((images - MEAN) / STD))
    assert ours.train()(images).shape == (2, 1000)


def test_every_torchvision_name_is_known():
    assert len(NAMES) >= 80
    for arch in NAMES:
        assert torchvision_weights(arch, "DEFAULT").size >= 224


@pytest.mark.parametrize(
    "name, options, line",
    [
        (
            "torchvision",
            {"arch": "resnet5"},
            "classifier.arch=resnet5 (did you mean 'resnet50'?): allowed are alexnet, ",
        ),
        ("torchvision", {"arch": "fasterrcnn_resnet50_fpn"}, "classifier.arch=fasterrcnn_resnet50_fpn"),
        ("torchvision", {"arch": "resnet18", "channels": 1}, "classifier.channels=1: resnet18 takes 3 "),
        ("timm", {"arch": "resnet1"}, "classifier.arch=resnet1 (did you mean 'resnet18'?): allowed are the "),
        ("timm", {"arch": "hf-hub:somebody/resnet18"}, "classifier.arch=hf-hub:somebody/resnet18"),
        ("timm", {"arch": "resnet18.tv_in"}, "classifier.arch=resnet18.tv_in (did you mean 'tv_in1k'?): resnet18 has "),
    ],
)
def test_what_is_not_there_is_one_line(name, options, line):
    pytest.importorskip(name)
    with pytest.raises(ValueError) as error:
        build(name, **options)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_without_timm_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"^classifier=timm needs timm: pip install .*\[timm\]$"):
        build("timm", arch="resnet18")


def test_entries_are_torchvisions():
    entry = torchvision_weights("resnet50", "DEFAULT")
    assert entry == torchvision_weights("resnet50", "IMAGENET1K_V2")
    assert (entry.file, entry.hash_prefix, entry.size) == ("resnet50-11ad3fa6.pth", "11ad3fa6", 224)
    assert torchvision_weights("inception_v3", "DEFAULT").size == 299
    other = torchvision_weights("mnasnet0_5", "DEFAULT")
    assert other.mean == pytest.approx((0.485, 0.456, 0.406)) and other.std == pytest.approx((0.229, 0.224, 0.225))
    with pytest.raises(ValueError, match=r"IMAGENET1K_V9 \(did you mean 'IMAGENET1K_V[12]'\?\): .* DEFAULT"):
        torchvision_weights("resnet50", "IMAGENET1K_V9")


def test_timm_networks_and_entries():
    pytest.importorskip("timm")
    module = build("timm", arch="resnet10t", classes=5, channels=1, mean=[0.5], std=[0.5]).eval()
    assert module(torch.rand(2, 1, 64, 64)).shape == (2, 5)
    entry = timm_weights("resnet18.tv_in1k", "pretrained")
    assert entry.file == "resnet18.tv_in1k.safetensors" and entry.url.endswith(
        "timm/resnet18.tv_in1k/resolve/main/model.safetensors"
    )
    assert entry.mean == (0.485, 0.456, 0.406) and entry.size == 224
    assert timm_weights("inception_v3.tf_in1k", "pretrained").mean == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="did you mean 'pretrained'"):
        timm_weights("resnet18", "pretraind")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_half_precision_files_load_as_float32(ending, tmp_path):
    torch.manual_seed(0)
    stored = {key: tensor.half() for key, tensor in torchvision.squeezenet1_1().state_dict().items()}
    path = tmp_path / f"squeezenet.{ending}"
    save_file(stored, path) if ending == "safetensors" else torch.save(stored, path)
    module = weights.load_published(path, name="torchvision", arch="squeezenet1_1")
    assert not module.training
    for key, tensor in module.network.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, stored[key].float())


def test_weights_of_another_network_are_one_line(tmp_path):
    torch.save(torchvision.squeezenet1_0().state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError) as error:
        weights.load_published(tmp_path / "other.pth", name="torchvision", arch="squeezenet1_1")
    line = str(error.value)
    assert "other.pth: not the weights of this squeezenet1_1: " in line and "of 52 tensors fit; " in line
    assert "features.0.weight" in line and "\n" not in line


def test_a_trained_one_comes_back_from_its_file(network, tmp_path):
    module = network("squeezenet1_1")
    weights.save(module, tmp_path / "w.safetensors")
    again = weights.load(tmp_path / "w.safetensors")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), module(images))
    assert again.config == module.config


def test_the_real_squeezenet_sees_what_is_on_photographs():
    file, labels = REAL / "weights/squeezenet1_1.pth", REAL / "imagenet-sample/labels.csv"
    if not file.is_file() or not labels.is_file():
        pytest.skip(f"needs {file} and {labels} (S2SNET_DATA)")
    module = weights.load_published(file, name="torchvision", arch="squeezenet1_1")
    with open(labels) as lines:
        rows = list(csv.DictReader(lines))[:20]
    images = torch.stack([photograph(labels.parent / row["file"]) for row in rows])
    with torch.no_grad():
        found = module(images).argmax(dim=1)
    assert int((found == torch.tensor([int(row["class_index"]) for row in rows])).sum()) == 14


def photograph(path: Path) -> torch.Tensor:
    """The middle 224 x 224 pixels of a photograph whose shorter side has 256."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255
    assert min(pixels.shape[1:]) == 256
    top, left = (pixels.shape[1] - 224) // 2, (pixels.shape[2] - 224) // 2
    return pixels[:, top : top + 224, left : left + 224]
