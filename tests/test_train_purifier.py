"""`s2snet.train_purifier`: both stages in front of a module of one's own, from Python."""

import copy
import os
import runpy

import pytest
import torch
from tiny import ROOT, composed, forked, kill_self
from torch import nn
from torch.utils.data import TensorDataset

import s2snet
from s2snet import api, weights
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


@pytest.mark.parametrize("stage", ["1", "2"])
def test_the_default_recipes_are_those_of_the_command_line(stage):
    assert api._RECIPES[stage] == dict(composed("train").recipes[f"stage{stage}"])


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


def test_what_cannot_be_is_one_line(own):
    with pytest.raises(ValueError, match=r"stage2's recipe=label.*did you mean 'labels'"):
        purifier(own, stage2={"label": "truth"})
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
