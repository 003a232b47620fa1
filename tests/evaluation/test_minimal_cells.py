"""Minimal attacks: one run for all budgets of a norm, a line for each and one for the distance itself."""

import math

import numpy as np
import pytest
import torch
from jobs import Blur, Linear, crafted, defence, evaluated, gray_box, line, lines, pictures, rows, white_box

from s2snet.attacks import ATTACKS
from s2snet.evaluation.schema import CLEAN, WORST_CASE

RADII = [0.1, 0.4, 5.0]
WORDS = {"attacks": {"ddn": {"steps": 8}}, "budgets": {"l2": RADII}}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """DDN on two defences at three budgets. Not to be written to."""
    return evaluated(tmp_path_factory.mktemp("minimal") / "r", **WORDS, threats=gray_box() | white_box())[0]


def test_it_runs_once_and_has_a_line_at_every_budget(done):
    assert {row["budget"] for row in rows(done, attack="ddn")} == {math.inf}
    sources = {(row["crafted"], row["source"]) for row in rows(done, attack="ddn")}
    assert len(sources) == 2  # gray box and white box share the bare classifier's
    assert sorted(crafted(done)) == sorted((key, chunk) for key, _ in sources for chunk in range(3))
    for name in ("none", "blur"):
        found = lines(done, defence=name, threat="white_box", attack="ddn")
        assert [each["budget"] for each in found] == [*RADII, math.inf]
        assert [each["distance"] is not None for each in found] == [False] * 3 + [True]
        accuracies = [each["accuracy"] for each in found]
        assert accuracies == sorted(accuracies, reverse=True)
    assert not lines(done, threat=WORST_CASE, budget=math.inf)  # anything fools at some distance


def test_right_at_a_budget_is_what_was_found_only_farther_away(done):
    found = rows(done, defence="none", attack="ddn", threat="white_box")
    for eps in RADII:
        right = [row["correct"] or row["l2"] > eps for row in found]
        at = line(done, defence="none", threat="white_box", attack="ddn", budget=eps)
        assert at["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
        clean = [row["correct"] for row in rows(done, defence="none", threat=CLEAN)]
        worst = line(done, defence="none", threat=WORST_CASE, budget=eps)
        gray = [row["correct"] or row["l2"] > eps for row in rows(done, defence="none", threat="gray_box")]
        assert worst["accuracy"] == pytest.approx(np.mean(np.all([clean, right, gray], axis=0)), abs=1e-6)
    assert 0 < line(done, defence="none", threat="white_box", budget=0.4)["accuracy"] < 0.9
    assert line(done, defence="none", threat="white_box", budget=5.0)["accuracy"] == 0


def test_the_median_distance_is_near_the_linear_classifiers_own(done):
    """Distance to the nearest boundary of a linear classifier: min over k of margin_k / ||w_k - w_label||."""
    module, images, labels = Linear(), pictures().images, pictures().labels
    with torch.no_grad():
        logits = module(images)
        gaps = logits.gather(1, labels[:, None]) - logits
        slopes = (module.weight[labels][:, None] - module.weight[None]).norm(dim=2)
        least = torch.where(slopes > 0, gaps / slopes, torch.inf).amin(dim=1).numpy()
    fine = least > 0
    assert fine.sum() == 18
    at = line(done, defence="none", threat="white_box", budget=math.inf)
    assert at["clean_correct"] == 18
    median = np.sort(least[fine])[9]
    assert median * 0.999 < at["distance"] < median * 1.2
    found = np.array([row["l2"] for row in rows(done, defence="none", threat="white_box")])
    assert (found[fine] > 0.999 * least[fine]).all()
    assert (found[~fine] == 0).all()  # wrong as they are


def test_a_failed_image_is_right_at_every_budget_and_infinitely_far(monkeypatch):
    """Of 18 images that are correct without an attack, 10 stay correct: more than half, so there is no median."""

    def lazy(model, images, labels, *, norm="l2", noise=None, targets=None, leave_early=False, passes=None):
        if noise is None or noise.indices is None:  # asked about its options, or its passes
            return images
        chosen = torch.tensor([index < 108 for index in noise.indices])
        return torch.where(chosen[:, None, None, None], 1 - images, images)

    lazy.version, lazy.norms, lazy.minimal = 1, ("l2",), True
    monkeypatch.setitem(ATTACKS, "lazy", lazy)
    folder, _ = evaluated(attacks={"lazy": {}}, budgets={"l2": [100.0]}, defences=[defence("none")])
    found = rows(folder, attack="lazy", threat="white_box")
    failed = [row for row in found if row["image"] >= 108]
    assert {row["l2"] for row in failed} == {0.0}
    turned = sum(not row["correct"] for row in found if row["image"] < 108)
    assert turned > 4
    at = line(folder, attack="lazy", threat="white_box", budget=100.0)
    assert at["accuracy"] == pytest.approx((20 - turned - 2) / 20)
    assert line(folder, attack="lazy", threat="white_box", budget=math.inf)["distance"] == math.inf


def test_a_smaller_perturbation_that_fools_another_judge_counts_for_that_judge():
    """Gray box: the distances are those of the bare classifier's images, and the judge says which fool it."""
    folder, _ = evaluated(**WORDS, threats=gray_box(), defences=[defence("none"), defence("blur", Blur())])
    by_none, by_blur = (rows(folder, defence=name, attack="ddn") for name in ("none", "blur"))
    assert [row["l2"] for row in by_none] == [row["l2"] for row in by_blur]
    assert sum(row["correct"] for row in by_blur) > sum(row["correct"] for row in by_none)
    at = line(folder, defence="blur", threat="gray_box", attack="ddn", budget=5.0)
    assert at["accuracy"] == pytest.approx(np.mean([row["correct"] for row in by_blur]))


def test_no_radii_at_all_still_give_the_distance():
    folder, _ = evaluated(**(WORDS | {"budgets": {"l2": []}}), threats=white_box(), defences=[defence("none")])
    assert [each["budget"] for each in lines(folder)] == [0.0, math.inf]
    assert line(folder, attack="ddn")["distance"] > 0


def test_what_the_copy_takes_for_fooling_and_the_network_withstands_is_attacked_again(monkeypatch):
    """With a copy that is another network: its boundary is elsewhere, and every image fools the network itself."""
    from s2snet.evaluation import plan

    class Shifted(Linear):
        def forward(self, images):
            return super().forward(images) + torch.tensor([0.2, 0.0, 0.0, 0.0])

    copy = defence("copy", classifier=Shifted()).module
    monkeypatch.setattr(plan, "_fast", lambda module, probe: copy)
    words = {"threats": white_box(), "defences": [defence("none")]}
    folder, _ = evaluated(**WORDS, **words)
    assert not any(row["correct"] for row in rows(folder, attack="ddn"))
    attacks = {"attacks": {"pgd": {"steps": 20}}, "budgets": {"linf": [0.2]}}
    for chunk in (8, 1):  # alone, an image has none to be earlier than
        folder, _ = evaluated(f"pgd{chunk}", **attacks, **words, chunk=chunk)
        assert not any(row["correct"] for row in rows(folder, attack="pgd"))
