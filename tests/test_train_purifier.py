"""`s2snet.train_purifier`: both stages in front of a module of one's own, from Python."""

import copy
import os
import runpy

import pytest
import torch
from PIL import Image
from tiny import ROOT, composed, forked, kill_self
from torch import nn
from torch.utils.data import TensorDataset
from trees import damage, plant

import s2snet
from s2snet import api, data, models
from s2snet.cli.settings import train_settings
from s2snet.config.option import check
from s2snet.config.recipe import Recipes
from s2snet.models import freeze
from s2snet.store import weights
from s2snet.training.stage import Stage

SMALL = {"widths": [4, 8], "convs": [1, 1]}
FEW = {"stage1": {"epochs": 2, "batch_size": 16}, "stage2": {"epochs": 1, "batch_size": 16, "shift": 0}}


@pytest.fixture
def own():
    """A classifier with a BatchNorm and a parameter that asks for no gradient, and images with labels."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    module[0].bias.requires_grad_(False)
    return module, (torch.rand(60, 1, 8, 8), torch.arange(60) % 3)


def purifier(own, **changed):
    return s2snet.train_purifier(
        own[0], own[1], **{"output": "runs", "options": SMALL, "device": "cpu", "progress": False, **FEW, **changed}
    )


def test_the_default_recipes_are_those_of_the_command_line():
    assert check(Recipes()) == train_settings(composed("train")).recipes


def test_both_stages_leave_weights_and_the_classifier_is_as_it_was(own):
    before = copy.deepcopy(own[0])
    tuned = purifier(own)
    assert not tuned.training and tuned(own[1][0][:2]).shape == (2, 1, 8, 8)
    assert tuned.header["classifier"] == weights.fingerprint(own[0]) == weights.fingerprint(before)
    assert [p.requires_grad for p in own[0].parameters()] == [p.requires_grad for p in before.parameters()]
    assert tuned.header["data"]["train"] == 54 and tuned.header["data"]["validation"] == 6
    plain = s2snet.load("runs/autoencoder/weights.safetensors")
    assert tuned.header["autoencoder"] == weights.fingerprint(plain) != weights.fingerprint(tuned)
    encoder = {key: value for key, value in plain.state_dict().items() if key.startswith("encoder.")}
    assert all(torch.equal(tuned.state_dict()[key], value) for key, value in encoder.items())


def test_any_map_style_data_set_serves(own):
    as_data_set = purifier((own[0], TensorDataset(*own[1])), output="other")
    assert as_data_set.header["data"]["train"] == 54


class Linear(nn.Module):
    """An autoencoder with no option but its channels."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(channels, 8, 2, 2), nn.ConvTranspose2d(8, channels, 2, 2)

    def encode(self, images):
        return self.encoder(images)

    def decode(self, code):
        return self.decoder(code)

    def forward(self, images):
        return self.decode(self.encode(images))


def test_an_autoencoder_may_have_no_normalisation(own, monkeypatch):
    for registry in (models.AUTOENCODERS, models.MODULES):
        monkeypatch.setitem(registry, "linear", Linear)
    assert purifier(own, autoencoder="linear", options=None).config == {"name": "linear", "channels": 1}


def test_the_same_call_gives_back_what_it_trained_and_another_is_refused(own, capfd):
    first = purifier(own)
    capfd.readouterr()
    assert weights.fingerprint(purifier(own)) == weights.fingerprint(first)
    assert "stage" not in capfd.readouterr().err
    with pytest.raises(ValueError, match=r"runs.autoencoder holds a run of another recipe, seed, network or data"):
        purifier(own, seed=1)
    with pytest.raises(ValueError, match=r"runs.s2snet holds a run of another recipe"):
        purifier(own, stage2={**FEW["stage2"], "lr": 0.1})


def test_a_killed_call_goes_on_to_the_same_weights(own):
    whole = weights.fingerprint(purifier(own, output="whole"))
    started = Stage.on_train_batch_start

    def start(self, batch, batch_index):
        if self.global_step == 4:
            kill_self()
        started(self, batch, batch_index)

    def killed():
        Stage.on_train_batch_start = start
        purifier(own)

    assert os.WTERMSIG(forked(killed)) == 9
    assert weights.fingerprint(purifier(own)) == whole


def test_image_files_of_three_channels_serve_and_damaged_ones_are_skipped(tmp_path, capfd):
    root = plant(tmp_path / "photos", [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(12)])
    photos = data.load("imagefolder", root=str(root), size=16).train
    damage(root, [str(photos.path(place).relative_to(root)) for place in (0, 2)])  # one validates, one trains
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 49, 2)).eval()
    tuned = purifier((classifier, photos))
    assert tuned.config["mean"] == [0.485, 0.456, 0.406] and tuned.header["input"]["size"] == 16
    assert "damaged images, skipped: 2, listed in runs/autoencoder/damaged.txt" in capfd.readouterr().err


def test_classifiers_share_a_stage_1(own):
    """The autoencoder of stage 1 serves several classifiers, frozen or not, with the same result as a whole call."""
    plain = purifier((None, own[1]), output="shared")
    assert not os.path.exists("shared/s2snet")
    before = weights.fingerprint(freeze(plain))
    whole = purifier(own)
    assert weights.fingerprint(whole) == weights.fingerprint(
        purifier(own, output="tuned", autoencoder=plain, options=None, stage1=None)
    )
    assert weights.fingerprint(plain) == before == whole.header["autoencoder"]
    assert not os.path.exists("tuned/autoencoder") and not any(p.requires_grad for p in plain.parameters())


def one(image) -> list:
    """A data set of that image alone, twenty times."""
    return [(image, 0)] * 20


GRAY = torch.rand(20, 1, 8, 8)


@pytest.mark.parametrize("changed, line", [
    ({"stage2": {"label": "truth"}}, r"unknown setting stage2.label \(did you mean 'labels'\?\): allowed here are "),
    ({"stage2": {"labels": "clasifier"}}, r"stage2.labels=clasifier \(did you mean 'classifier'\?\)"),
    ({"stage2": {"cache": "memory"}}, "only of images that stay as they are; turn off stage2.shift=2"),
    ({"stage1": {"optimiser": "adm"}}, r"stage1.optimiser=adm \(did you mean 'adam'\?\)"),
    ({"stage1": {"epochs": 0}}, "stage1.epochs=0: must be at least 1"),
    ({"autoencoder": "small_cnn"}, "autoencoder=small_cnn: allowed are segnet, segnet_small"),
    ({"autoencoder": nn.Flatten()}, "autoencoder=Flatten: allowed are segnet, segnet_small"),
    ({"autoencoder": models.build("segnet_small", **SMALL)}, "takes neither options nor stage1"),
    (
        {"autoencoder": models.build("segnet_small", widths=[4] * 4, convs=[1] * 4), "options": None, "stage1": None},
        "the autoencoder cannot take images of 1 x 8 x 8",
    ),
    ({"images": (GRAY, torch.arange(20) % 4)}, "the classifier predicts 3 classes; the images have 4"),
    ({"images": (GRAY, torch.full((20,), -1))}, "some images have no label; stage2={'labels': 'classifier'}"),
    ({"images": (GRAY[:0], torch.empty(0))}, "expected at least one image, got none"),
    ({"images": (GRAY * 255, torch.zeros(20).long())}, r"images float32 \[C, H, W\] .*, got values from .* to 2"),
    ({"images": one(GRAY[0].double())}, r"got torch.float64 \[1, 8, 8\]"),
    ({"images": one((GRAY[0] * 255).byte())}, r"got torch.uint8 \[1, 8, 8\]"),
    ({"images": one(Image.new("L", (8, 8)))}, "got Image"),
    ({"images": list(GRAY)}, r"expected items \(image, label\) in the list, got Tensor"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_before_anything_is_trained(own, changed, line):
    changed = dict(changed)
    with pytest.raises(ValueError, match=line):
        purifier((own[0], changed.pop("images", own[1])), **changed)
    assert not os.path.exists("runs")


def test_a_classifier_in_training_mode_is_one_line(own):
    with pytest.raises(ValueError, match="the classifier is in training mode"):
        purifier((own[0].train(), own[1]))


def test_the_example_runs(monkeypatch, capsys):
    """examples/own_classifier.py as it stands, with fewer epochs and attacks."""
    train, evaluate = api.train_purifier, api.evaluate
    few = {"stage1": {"epochs": 1}, "stage2": {"epochs": 1}, "progress": False, "device": "cpu"}
    monkeypatch.setattr(api, "train_purifier", lambda *given, **options: train(*given, **options, **few))
    quick = {"attacks": ["fgsm"], "threats": ["gray_box"], "images": 40, "progress": False, "device": "cpu"}
    monkeypatch.setattr(api, "evaluate", lambda *given, **options: evaluate(*given, **options, **quick))
    path = ROOT / "examples/own_classifier.py"
    code = path.read_text().partition('"""\n\n')[2].strip().splitlines()
    assert len(code) < 30
    runpy.run_path(str(path))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["mine", "clean"], ["mine", "worst_case"], ["none", "clean"], ["none", "worst_case"]
    ]  # fmt: skip
