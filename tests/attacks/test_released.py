"""Leaving early, 8 bits: what they do to the released weights of the digits, and what they must not do."""

import numpy
import pytest
import torch
from linear_models import ATTACKS, BUDGET

import s2snet
from s2snet import data
from s2snet.attacks import Noise, Passes, bim, pgd
from s2snet.attacks.balls import distance, eight_bits
from s2snet.attacks.losses import fooled
from s2snet.models import Defended
from s2snet.store import paths

STEPS = {"steps": 5}


@pytest.fixture(scope="module")
def networks():
    folder = paths.released() / "digits"
    classifier = s2snet.load(folder / "classifier-small_cnn.safetensors").eval()
    purifier = s2snet.load(folder / "s2snet-segnet_small-small_cnn.safetensors")
    adversarial = s2snet.load(folder / "adversarial-small_cnn.safetensors").eval()
    return {"none": classifier, "s2snet": Defended(purifier, classifier).eval(), "adversarial": adversarial}


@pytest.fixture(scope="module")
def batch():
    test = data.load("digits").test
    return test.images[::6], test.labels[::6]  # 60, of all classes


@torch.no_grad()
def right(network, images, labels):
    return ~fooled(network(images), labels)


def test_leaving_early_raises_another_models_accuracy_under_bim_10(networks, batch):
    """Why the engine lets images leave early for a sole judge only."""
    images, labels = batch
    whole, early = (
        bim(networks["none"], images, labels, eps=64 / 255, steps=10, leave_early=leave) for leave in (False, True)
    )
    assert torch.equal(right(networks["none"], whole, labels), right(networks["none"], early, labels))
    for other in ("adversarial", "s2snet"):
        accuracy = [right(networks[other], found, labels).double().mean() for found in (whole, early)]
        assert accuracy[1] > accuracy[0] + 0.05, (other, accuracy)


@pytest.mark.parametrize("defence", ["none", "s2snet"])
@pytest.mark.parametrize("name", BUDGET)
def test_for_a_sole_deterministic_judge_leaving_early_changes_no_verdict(name, defence, networks, batch):
    """Robust accuracy with early leaving is that without, image by image."""
    images, labels = (item[::5] for item in batch)
    options = {"eps": {"none": 4 / 255, "s2snet": 25.5 / 255}[defence], **(STEPS if name != "fgsm" else {})}
    if name in ("pgd", "apgd"):
        options["noise"] = Noise(3)
    taken = [Passes(len(images)), Passes(len(images))]
    verdicts = [
        right(
            networks[defence],
            ATTACKS[name](networks[defence], images, labels, leave_early=leave, passes=passes, **options),
            labels,
        )
        for leave, passes in zip((True, False), taken, strict=True)
    ]
    assert torch.equal(*verdicts)
    assert (taken[0].forwards <= taken[1].forwards).all()
    if name in ("bim", "pgd", "mim", "apgd"):  # and images did leave
        assert taken[0].forwards.sum() < taken[1].forwards.sum()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.5)])
def test_saved_with_8_bits_images_are_other_images_and_are_judged_again(norm, eps, networks, batch):
    """Rounding takes some images' success: a verdict from before the saving would be wrong about the file."""
    network = networks["s2snet"]
    images, labels = (batch[0][::2] * 255).round() / 255, batch[1][::2]
    found = pgd(network, images, labels, eps=eps, norm=norm, steps=10, leave_early=True)
    saved = eight_bits(found, images)
    assert saved.dtype == torch.uint8
    read = torch.from_numpy(saved.numpy().astype(numpy.float32) / numpy.float32(255))
    assert (distance((read.double() * 255).round(), (images.double() * 255).round(), norm) <= eps * 255 + 1e-9).all()
    assert (read - found).abs().max() > 1e-4
    before, after = right(network, found, labels), right(network, read, labels)
    assert (after & ~before).any()
    # and what is on the disk is what the second verdict was about
    assert torch.equal(eight_bits(read, images), saved)


def test_random_starts_in_l2_leave_little_more_than_the_image_itself(networks, batch):
    """From the rim of the ball, where its uniform points lie, PGD leaves 38 of 180; from the image itself 27."""
    images, labels = batch
    left = [
        right(
            networks["none"],
            pgd(networks["none"], images, labels, eps=0.25, norm="l2", random_start=start, leave_early=True),
            labels,
        ).sum()
        for start in (False, True)
    ]
    assert left[1] <= left[0] + 2
