"""Defences that answer at random: the same rows each time, no leaving early, and the attack that averages."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from jobs import Blur, Linear, Noisy, crafted, defence, evaluated, files, gray_box, line, rows, timing, white_box
from torch import nn

from s2snet.evaluation import progress
from s2snet.evaluation.schema import CLEAN, WORST_CASE

WORDS = {
    "defences": [defence("none"), defence("noisy", Noisy()), defence("blur", Blur())],
    "threats": gray_box() | white_box("exact", "identity", "smoothed"),
    "attacks": {"pgd": {"steps": 3}, "ddn": {"steps": 3}},
    "budgets": {"linf": [0.05], "l2": [0.5]},
    "count": 11,
}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Two defences of which one draws. Not to be written to."""
    torch.manual_seed(11)
    return evaluated(tmp_path_factory.mktemp("random") / "r", **WORDS)[0]


def test_rows_repeat_whatever_was_drawn_before(noisy):
    torch.manual_seed(12)
    assert files(evaluated(**WORDS)[0]) == files(noisy)


def test_interrupted_or_not_the_rows_are_the_same(noisy, monkeypatch):
    real = progress.shown

    class Stopping(progress.Progress):
        def __init__(self, bar):
            self.bar, self.asked = bar, 0

        @property
        def stopped(self):
            self.asked += 1
            return self.asked > 7

        def advance(self, cell, images):
            self.bar.advance(cell, images)

    @contextlib.contextmanager
    def stopping(*words):
        with real(*words) as bar:
            yield Stopping(bar)

    with monkeypatch.context() as patch:
        patch.setattr(progress, "shown", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluated(**WORDS)
    before = crafted(Path("r"))
    assert 0 < len(before) < len(crafted(noisy))
    folder, _ = evaluated(**WORDS)
    assert crafted(folder)[: len(before)] == before
    assert files(folder) == files(noisy)


def test_nobody_leaves_a_defence_that_draws(noisy):
    cells = json.loads((noisy / "run.json").read_text())["cells"]
    assert not any(cell["leave_early"] for cell in cells if cell["source"] == "noisy")
    assert any(cell["leave_early"] for cell in cells if cell["source"] == "blur")
    passes = {row["route"]: set() for row in rows(noisy, threat="white_box", defence="noisy", attack="pgd")}
    for row in rows(noisy, threat="white_box", defence="noisy", attack="pgd"):
        passes[row["route"]].add((row["forwards"], row["backwards"]))
    draws = 2
    assert passes == {
        "exact": {(4, 3)},
        "identity": {(4, 3)},
        "smoothed": {(4 + 3 * draws, 3 * draws)},  # each backward pass is that many of the network's
        "eot": {(4 * draws, 3 * draws)},
    }


def test_the_averaging_attack_is_there_though_nobody_asked(noisy):
    assert {row["route"] for row in rows(noisy, threat="white_box", defence="blur")} == {
        "exact", "identity", "smoothed"
    }  # fmt: skip
    found = line(noisy, defence="noisy", threat="white_box", route="eot", attack="pgd", norm="linf")
    assert found["status"] == "done"
    cells = json.loads((noisy / "run.json").read_text())["cells"]
    assert {cell["options"].get("draws") for cell in cells if cell["route"] == "eot"} == {2}


def test_the_judges_draws_are_the_same_for_every_cell(noisy):
    """An image that an attack left alone is answered as the clean one is."""
    clean = {row["image"]: row["margin"] for row in rows(noisy, threat=CLEAN, defence="noisy")}
    still = [row for row in rows(noisy, defence="noisy", attack="ddn") if row["linf"] == 0]
    assert still
    assert all(row["margin"] == clean[row["image"]] for row in still)
    assert {row["seed"] for row in rows(noisy)} == {0}


def test_purification_distance_in_signal_space_is_the_attacks_doing(noisy):
    """A(x') and A(x) with the same draws: for this purifier ||A(x') - A(x)|| is ||x' - x||."""
    for row in rows(noisy, defence="noisy"):
        assert row["purified_signal"] == pytest.approx(row["l2"], rel=1e-4, abs=1e-5)
        assert 0.4 < row["purified_pixel"] < 0.8  # 0.05 x sqrt(144) is 0.6


def test_dropout_in_a_classifier_without_purifier_is_random_too():
    classifier = nn.Sequential(Linear(), nn.Dropout(0.5).train())
    module = defence("dropout", classifier=classifier)
    module.module.classifier[1].train()
    words = {"defences": [module], "threats": white_box("exact", "identity")}
    folder, _ = evaluated(**words)
    assert {row["route"] for row in rows(folder, threat="white_box")} == {"exact", "eot"}
    assert line(folder, threat=WORST_CASE)["status"] == "done"
    again, _ = evaluated("again", **words)
    assert files(again) == files(folder)
    assert len(timing(folder)) == 6
