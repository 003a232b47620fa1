"""Checks of the results, on results written by hand."""

import pytest
import torch
from handmade import EPS, attacked
from jobs import defence, pictures, white_box
from records import RIGHT, answer, folder, measured, turned

from s2snet.audit.checks import findings
from s2snet.audit.probes.images import pixels_and_copies
from s2snet.data import Images


@pytest.mark.parametrize(
    ("threat", "distance", "verdict"),
    [
        ("white_box", EPS, "pass"),
        ("white_box", EPS + 1e-9, "fail"),
        ("foreign", EPS + 1e-9, "pass"),
        ("foreign", EPS + 1e-5, "fail"),
    ],
)
def test_images_beyond_their_radius(threat, distance, verdict):
    assert answer("ball_and_box", folder(attacked(RIGHT, "a", threat, linf=distance))).verdict == verdict


@pytest.mark.parametrize(
    ("made", "options", "claimed", "early", "correct", "verdict"),
    [
        (40, {"steps": 40}, 40.0, False, RIGHT, "pass"),
        (1, {"steps": 40}, 40.0, False, RIGHT, "fail"),
        (1, {"steps": 40}, 1.0, False, RIGHT, "fail"),  # an attack that takes one step whatever its options
        (50, {"steps": 40}, 40.0, False, RIGHT, "warn"),
        (1, {"steps": 40}, 40.0, True, RIGHT, "fail"),  # not turned, so nothing left early
        (1, {"steps": 40}, 40.0, True, [0] * 200, "not applicable"),
        (1, {}, 1.0, False, RIGHT, "pass"),
    ],
)
def test_one_step_named_as_forty(made, options, claimed, early, correct, verdict):
    cell = {"options": options, "passes": [claimed + 1, claimed], "leave_early": early}
    here = folder(attacked(correct, "a", backwards=made, forwards=made + 1), cells={"a": cell})
    assert answer("counted_passes", here).verdict == verdict


@pytest.mark.parametrize(("made", "verdict"), [(500, "pass"), (40, "fail")])
def test_of_an_attack_without_gradients_forwards_count(made, verdict):
    cell = {"options": {"steps": 500}, "passes": [500.0, 0.0], "leave_early": True}
    here = folder(attacked(RIGHT, "a", "query", attack="square", forwards=made), cells={"a": cell})
    assert answer("counted_passes", here).verdict == verdict


@pytest.mark.parametrize(
    ("steps", "size", "verdict"),
    [(40, EPS, "pass"), (10, EPS / 6, "warn"), (10, EPS / 20, "fail"), (40, 3 * EPS, "fail")],
)
def test_steps_that_cannot_reach_the_rim_or_overshoot_it(steps, size, verdict):
    here = folder(attacked(RIGHT, "a"), cells={"a": {"options": {"steps": steps, "step_size": size}}})
    assert answer("step_budget", here).verdict == verdict


def test_few_images_warn_and_missing_ones_fail():
    assert answer("denominators", folder(attacked(turned(5), "a"))).verdict == "pass"


def test_a_wide_interval_warns():
    few = answer("denominators", folder(attacked(turned(10, n=20), "a")))
    assert few.verdict == "warn" and "n=20" in few.evidence


def test_accuracy_over_fewer_images_fails():
    here = folder(attacked(turned(5), "a"))
    edit(here, "images", "150")
    assert answer("denominators", here).verdict == "fail"


def test_the_worst_case_is_computed_anew():
    here = folder(attacked(turned(50), "a"), attacked(turned(50, 25), "b", attack="bim"))
    assert answer("worst_case", here).verdict == "pass"
    edit(here, "accuracy", "0.75")  # the mean of both, and the worse of both: not what one attacker leaves
    wrong = answer("worst_case", here)
    assert wrong.verdict == "fail" and "0.7500 in the table, 0.6250 in the rows" in wrong.evidence


def test_a_failed_cell_warns():
    here = folder(attacked(RIGHT, "a"), attacked(RIGHT, "b"), cells={"b": {"status": "failed", "reason": "NaN"}})
    assert answer("worst_case", here).verdict == "warn"


def edit(here, column: str, value: str) -> None:
    """Write a value into the line of the worst case in table.csv."""
    head, *lines = (here / "table.csv").read_text().splitlines()
    place = head.split(",").index(column)
    edited = []
    for line in lines:
        cells = line.split(",")
        if cells[1] == "worst_case":
            cells[place] = value
        edited.append(",".join(cells))
    (here / "table.csv").write_text("\n".join([head, *edited]) + "\n")


@pytest.mark.parametrize(("differ", "verdict"), [(0, "pass"), (1, "fail")])
def test_verdicts_that_do_not_repeat(differ, verdict):
    probes = {"recomputed": {"images": 64, "differ": differ, "ties": 1}}
    assert answer("recomputed", folder(attacked(RIGHT, "a"), probes=probes)).verdict == verdict


def test_a_test_image_among_the_training_images():
    test, train = pictures(), pictures(40, seed=1)
    leaked = Images(
        torch.cat([train.images, test.images[3:4]]),
        torch.cat([train.labels, test.labels[3:4]]),
        torch.arange(41),
        train.classes,
        train.mean,
        train.std,
    )
    for given, verdict in ((train, "pass"), (leaked, "fail")):
        plain = {"defences": [defence("none")], "threats": white_box(), "attacks": {"fgsm": {}}}
        here = measured(f"leak-{verdict}", train=given, **plain)
        (found,) = (finding for finding in findings(here) if finding.check == "leakage")
        assert found.verdict == verdict
    assert found.evidence.startswith("1 of 20")


@pytest.mark.parametrize(
    ("train", "verdict"),
    [
        (lambda test, noise: noise, "pass"),
        (lambda test, noise: torch.cat([noise, test[:1]]), "fail"),
        (lambda test, noise: torch.cat([noise, 0.5 + 0.4 * test[:1] + 0.005 * noise[:1]]), "warn"),
        (lambda test, noise: test.flip(3), "pass"),  # and docs/audit.md says so
    ],
)
def test_test_images_that_were_trained_on(train, verdict):
    test, noise = (torch.rand(20, 1, 12, 12, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    seen, taken = (
        Images(x, torch.zeros(len(x)).long(), torch.arange(len(x)), ["0"]) for x in (test, train(test, noise))
    )
    here = folder(attacked(RIGHT, "a"), data=pixels_and_copies(seen, taken))
    (found,) = (finding for finding in findings(here) if finding.check == "leakage")
    assert found.verdict == verdict
