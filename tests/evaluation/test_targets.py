"""Targeted attacks: which class each image is to reach, and what the rows and the table say of it."""

import pytest
import torch
from jobs import CLASSES, Blur, Linear, defence, evaluated, files, gray_box, line, lines, pictures, rows, white_box
from tiny import evaluate

from s2snet.attacks import Noise
from s2snet.evaluation.targets import TARGETS

LABELS = torch.arange(200) % CLASSES


def targets(aim: str, seed: int = 0, indices=None, labels=LABELS):
    images = pictures(len(labels)).images
    indices = range(len(labels)) if indices is None else indices
    return TARGETS[aim](Linear(), images, labels, CLASSES, Noise(seed, indices))


@pytest.mark.parametrize("aim", TARGETS)
def test_a_target_is_a_class_and_never_the_label(aim):
    for classes in (2, CLASSES):
        module = torch.nn.Sequential(Linear(), torch.nn.Linear(CLASSES, classes))
        torch.nn.init.eye_(module[1].weight), torch.nn.init.zeros_(module[1].bias)
        labels = LABELS % classes
        found = TARGETS[aim](module, pictures(200).images, labels, classes, Noise(0, range(200)))
        assert found.dtype == torch.int64
        assert (found != labels).all()
        assert 0 <= found.min() <= found.max() == classes - 1


def test_next_is_the_class_after_the_label():
    assert torch.equal(targets("next"), (LABELS + 1) % CLASSES)


def test_random_is_uniform_and_travels_with_the_image():
    found = targets("random")
    offsets = torch.bincount((found - LABELS) % CLASSES, minlength=CLASSES)
    assert offsets[0] == 0
    assert offsets[1:].min() > 40  # of 200 / 3
    assert torch.equal(targets("random"), found)
    assert not torch.equal(targets("random", seed=1), found)
    assert torch.equal(targets("random", indices=range(50, 60), labels=LABELS[50:60]), found[50:60])


def test_least_likely_has_the_smallest_logit_but_for_the_label():
    with torch.no_grad():
        logits = Linear()(pictures(200).images)
    found = targets("least_likely")
    smallest = logits.argmin(dim=1)
    assert torch.equal(found[smallest != LABELS], smallest[smallest != LABELS])
    second = logits.argsort(dim=1)[:, 1]
    assert torch.equal(found[smallest == LABELS], second[smallest == LABELS])
    assert (smallest == LABELS).any()


@pytest.fixture(scope="module")
def aimed(tmp_path_factory):
    """PGD at a moderate budget, aimed and not. Not to be written to."""
    attacks = {"free": {"name": "pgd", "steps": 5}, "aimed": {"name": "pgd", "steps": 5, "targets": "next"}}
    return evaluated(tmp_path_factory.mktemp("aimed") / "r", attacks=attacks, budgets={"linf": [0.04]})[0]


def test_rows_name_the_target_and_the_table_the_share_that_reached_it(aimed):
    for row in rows(aimed):
        wanted = (row["label"] + 1) % CLASSES if row["attack"] == "aimed" else -1
        assert row["target"] == wanted
    for defence_name in ("none", "blur"):
        found = rows(aimed, defence=defence_name, attack="aimed", threat="white_box")
        share = sum(row["prediction"] == row["target"] for row in found) / len(found)
        assert line(aimed, defence=defence_name, attack="aimed", threat="white_box")["reached"] == pytest.approx(share)
    reached = line(aimed, defence="none", attack="aimed", threat="white_box")["reached"]
    assert 0.1 < reached < 0.95
    assert all(found["reached"] is None for found in lines(aimed, attack="free"))


def test_a_targeted_attack_reaches_more_of_its_targets_than_a_free_one(aimed):
    at_target = {
        attack: sum(
            row["prediction"] == (row["label"] + 1) % CLASSES
            for row in rows(aimed, defence="none", attack=attack, threat="white_box")
        )
        for attack in ("free", "aimed")
    }
    assert at_target["aimed"] > at_target["free"]


def test_an_image_leaves_early_at_its_target_and_not_at_another_class():
    words = {"threats": white_box(), "defences": [defence("none")], "budgets": {"linf": [0.3]}}
    folder, _ = evaluated(attacks={"pgd": {"steps": 8, "targets": "next"}}, **words)
    found = rows(folder, threat="white_box")
    left = [row for row in found if row["forwards"] < 9]
    assert left
    assert all(row["prediction"] == row["target"] for row in left)


def test_least_likely_of_gray_box_is_the_sources_and_not_the_judges():
    words = {"attacks": {"fgsm": {"targets": "least_likely"}}, "threats": gray_box()}
    folder, _ = evaluated(defences=[defence("none"), defence("blur", Blur())], **words)
    images = pictures()
    expected = TARGETS["least_likely"](Linear(), images.images, images.labels, CLASSES, Noise())
    for name in ("none", "blur"):
        assert [row["target"] for row in rows(folder, defence=name, attack="fgsm")] == expected.tolist()


def test_chunks_do_not_move_random_targets():
    words = {"attacks": {"pgd": {"steps": 2, "targets": "random"}}, "defences": [defence("none")]}
    first, again = (evaluated(f"r{chunk}", chunk=chunk, **words)[0] for chunk in (5, 20))
    keys = ("image", "target", "prediction", "linf")
    assert [[row[key] for key in keys] for row in rows(first)] == [[row[key] for key in keys] for row in rows(again)]
    assert files(first) != files(again)  # the chunk is in the key


def test_targets_from_the_command_line():
    words = ["images=6", "attack=[fgsm]", "threat=[gray_box]", "defence=[none]", "samples=0", "budgets.linf=[0.2]"]
    folder, _ = evaluate(*words, "classifier.weights=random", "audit=off", "+attack.fgsm.targets=next")
    assert {(row["target"] - row["label"]) % 10 for row in rows(folder, attack="fgsm")} == {1}
