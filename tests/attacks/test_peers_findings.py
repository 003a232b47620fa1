"""Faults observed in other attack libraries, each tested here (numbers of our list)."""

import numpy
import pytest
import torch
from linear_models import ATTACKS, BUDGET, EVERY_NORM, GRADIENT, MINIMAL, Linear, call, needed, problem
from torch import nn
from torch.nn import functional

from s2snet.attacks import Noise, Passes, apgd, bim, cw, deepfool, fmn, pgd
from s2snet.attacks.balls import distance, eight_bits
from s2snet.attacks.losses import fooled, margin

LINF = [name for name in BUDGET if "linf" in ATTACKS[name].norms]
L2 = [name for name in BUDGET if "l2" in ATTACKS[name].norms]


@pytest.fixture(scope="module")
def digits():
    """Two small classifiers of the digits at 8 x 8, images and labels of the test part."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target)
    models = []
    with torch.random.fork_rng():
        for seed, width in ((0, 48), (1, 32)):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
            optimiser = torch.optim.Adam(model.parameters(), 0.01)
            for _ in range(12):
                for rows in torch.randperm(1437).split(64):
                    optimiser.zero_grad()
                    functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                    optimiser.step()
            models.append(model.eval())
    return (*models, images[1437:], labels[1437:])


def accuracy(model, images, labels):
    return (~fooled(model(images), labels)).double().mean().item()


# 1, 2: images a rounding error outside the ball


@pytest.mark.parametrize("name", LINF)
@pytest.mark.parametrize("eps", [8 / 255, 25.5 / 255])
def test_linf_images_pass_the_float32_test_and_the_exact_one(name, eps, digits):
    model, _, images, labels = digits
    found = call(name, model, images[:100], labels[:100], eps=eps)
    assert not ((found - images[:100]).abs() > eps).any()
    assert (numpy.abs(found.numpy().astype(float) - images[:100].numpy().astype(float)) <= eps).all()


@pytest.mark.parametrize("name", L2)
def test_l2_images_pass_the_float32_test_and_the_exact_one(name, digits):
    model, _, images, labels = digits
    images, labels = 0.3 + 0.4 * images[:100], labels[:100]  # room on both sides
    found = call(name, model, images, labels, eps=1.0, norm="l2")
    delta = (found.double() - images.double()).flatten(1)
    assert (numpy.linalg.norm(delta.numpy(), axis=1) <= 1.0).all()
    assert not ((found - images).flatten(1).norm(dim=1) > 1.0 + 1e-7).any()  # whose own sum is rounded
    assert (delta.norm(dim=1) > 0.99).sum() > 50  # and the ball is used


# 3 to 8: what an attack leaves behind (test_contract.py has modes, buffers, gradients, random states)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_float64_module_takes_float64_images(name):
    model, images, labels = problem(3, 49, count=3)
    found = call(name, model.double(), images.double(), labels, eps=0.3)
    assert fooled(model(found), labels).any()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_defence_made_of_dropout_is_still_one_after_the_attack(name):
    model, images, labels = problem(3, 49, count=6)
    defended = nn.Sequential(nn.Dropout(0.5), model).eval()
    defended[0].train()
    call(name, defended, images, labels)
    assert not torch.equal(defended(images), defended(images))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_callers_random_numbers_go_on_as_if_nothing_had_been(name):
    model, images, labels = problem(3, 49, count=3)
    torch.manual_seed(11), numpy.random.seed(11)
    want = torch.rand(2), numpy.random.rand(2)
    torch.manual_seed(11), numpy.random.seed(11)
    call(name, nn.Sequential(nn.Dropout(0.1), model), images, labels, noise=Noise(3))
    assert torch.equal(torch.rand(2), want[0]) and (numpy.random.rand(2) == want[1]).all()


# 9, 10, 11: radius 0, empty batches, few classes


@pytest.mark.parametrize(("name", "norm"), [pair for pair in EVERY_NORM if pair[0] in BUDGET])
def test_radius_zero_is_the_image(name, norm):
    model, images, labels = problem(3, 49, count=3)
    assert torch.equal(call(name, model, images, labels, eps=0.0, norm=norm), images)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("rest", [(5,), (2, 4), (1, 8, 8)])
def test_an_empty_batch_is_an_empty_batch(name, rest):
    def refuse(x):
        raise AssertionError("asked about nothing")

    found = call(name, refuse, torch.zeros(0, *rest), torch.zeros(0, dtype=torch.int64))
    assert found.shape == (0, *rest)


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
@pytest.mark.parametrize("target_classes", [0, 9])
def test_dlr_takes_any_number_of_classes(classes, target_classes):
    model, images, labels = problem(classes, 49, count=5)
    for norm, eps in (("linf", 0.2), ("l2", 1.5)):
        found = apgd(model, images, labels, eps=eps, norm=norm, loss="dlr", target_classes=target_classes, steps=20)
        assert fooled(model(found), labels).all()


def test_every_other_class_gets_its_run_and_the_label_none():
    model, images, labels = problem(4, 49, count=5)
    for wanted, runs in ((0, 1), (1, 1), (2, 2), (3, 3), (9, 3)):
        passes = Passes(5)
        apgd(model, images, labels, eps=1e-4, target_classes=wanted, steps=5, passes=passes)
        assert passes.backwards.tolist() == [5 * runs] * 5


# 12, 13, 14: logits shifted, scaled, not numbers


@pytest.mark.parametrize("name", ATTACKS)
def test_a_shift_of_all_logits_changes_no_verdict(name):
    model, images, labels = problem(4, 49, count=2, seed=20)
    wanted = {"steps": 40, "searches": 4, "eps": 0.1}
    plain = call(name, model, images, labels, **wanted)
    for shift in (-100.0, 100.0):
        moved = Linear(model.weights.detach(), model.bias.detach() + shift)
        shifted = call(name, moved, images, labels, **wanted)
        assert torch.equal(fooled(model(plain), labels), fooled(model(shifted), labels))
        assert name in BUDGET or fooled(model(shifted), labels).all()
        assert name in BUDGET or shifted.allclose(plain, atol=0.02)


@pytest.mark.parametrize("name", ATTACKS)
def test_all_negative_logits_and_log_probabilities_are_as_good(name):
    model, images, labels = problem(4, 49, count=3, seed=21)
    wanted = {"steps": 40, "searches": 4, "eps": 0.1, "loss": "margin"}
    plain = call(name, model, images, labels, **wanted)
    softened = call(name, lambda x: model(x).log_softmax(dim=1), images, labels, **wanted)
    assert torch.equal(fooled(model(plain), labels), fooled(model(softened), labels))
    if name in MINIMAL:
        assert fooled(model(softened), labels).all()


@pytest.mark.parametrize("name", [name for name in BUDGET if name in GRADIENT])
def test_logits_times_thirty_are_no_defence(name, digits):
    model, _, images, labels = digits
    images, labels = images[:100], labels[:100]
    wanted = {"eps": 0.15, "steps": 20, "step_size": 0.02}
    plain = accuracy(model, call(name, model, images, labels, **wanted), labels)
    loud = accuracy(model, call(name, lambda x: 30 * model(x), images, labels, **wanted), labels)
    # plain cross-entropy stands still at most of these images
    x = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(30 * model(x), labels), x)
    assert (gradient.flatten(1).abs().amax(dim=1) == 0).double().mean() > 0.3
    assert loud <= plain + 0.1
    assert name == "least_likely" or plain < 0.7


@pytest.mark.parametrize("name", ATTACKS)
def test_no_number_near_the_image_is_not_robust(name):
    model, images, labels = problem(3, 49, count=6, seed=22)
    labels = torch.zeros_like(labels)
    model.bias.data += torch.tensor([30.0, 0, 0])  # class 0 everywhere: what a NaN's argmax would be, too

    def fragile(x):
        moved = (x - images[: len(x)]).abs().flatten(1).amax(dim=1) > 1e-4
        return model(x) + torch.where(moved, torch.nan, 0.0)[:, None]

    found = call(name, fragile, images[:1], labels[:1], eps=0.05)
    assert not fragile(found).isfinite().any()
    assert fooled(fragile(found), labels[:1]).all()


# 16, 18, 19, 20: minimal attacks that fail, stop on the border, or stray


@pytest.mark.parametrize("name", MINIMAL)
def test_no_digit_withstands_a_minimal_attack(name, digits):
    model, _, images, labels = digits
    count = 3 if name == "lbfgs" else 60
    images, labels = images[:count], labels[:count]
    found = call(name, model, images, labels, steps=60, searches=4, norm="l2")
    assert fooled(model.double()(found.double()), labels).all()
    model.float()
    reference = distance(deepfool(model, images, labels), images, "l2")
    assert distance(found, images, "l2").median() <= 1.02 * reference.median()


@pytest.mark.parametrize("overshoot", [0.0, 0.02])
def test_deepfool_does_not_stop_on_the_border(overshoot):
    model, images, labels = problem(4, 49, count=60, seed=23)
    found = deepfool(model, images, labels, overshoot=overshoot)
    assert (margin(model.double()(found.double()), labels) > 0).all()


@pytest.mark.parametrize("norm", fmn.norms)
def test_fmn_is_at_the_distance_for_every_image(norm):
    model, images, labels = problem(2, 49, count=100, seed=24, spread=4)
    ratio = distance(fmn(model, images, labels, norm=norm), images, norm) / needed(model, images, labels, norm)
    assert ratio.isfinite().all() and ratio.min() >= 1 - 1e-9 and ratio.max() <= 1.03


# 21, 22, 23: images of zeros and ones; neighbours in the batch; other pixel units


def test_cw_moves_pixels_that_are_exactly_zero_or_one(digits):
    model, _, images, labels = digits
    binary = (images[:60] > 0.5).float()
    found = cw(model, binary, labels[:60], searches=3)
    assert fooled(model(found), labels[:60]).all()
    assert (
        distance(found, binary, "l2").median()
        <= 1.05 * distance(deepfool(model, binary, labels[:60]), binary, "l2").median()
    )


@pytest.mark.parametrize("name", MINIMAL)
def test_a_minimal_distance_is_the_same_alone_and_among_others(name, digits):
    model, _, images, labels = digits
    count = 2 if name == "lbfgs" else 4
    wanted = {"steps": 30, "searches": 3, "norm": "l2"}
    together = distance(call(name, model, images[:count], labels[:count], **wanted), images[:count], "l2")
    alone = [
        distance(call(name, model, one, label, **wanted), one, "l2")
        for one, label in zip(images[:count].split(1), labels[:count].split(1), strict=True)
    ]
    assert together.allclose(torch.cat(alone), atol=2e-3)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_classifier_of_grey_levels_gives_the_same_distances(name):
    model, images, labels = problem(3, 49, count=3, seed=25)
    scaled_down = Linear(model.weights.detach() / 255, model.bias.detach())
    wanted = {"steps": 40, "searches": 4, "eps": 0.1}
    plain = call(name, model, images, labels, **wanted)
    scaled = call(name, lambda x: scaled_down(x * 255), images, labels, **wanted)
    norm = ATTACKS[name].norms[0]
    assert distance(scaled, images, norm).allclose(distance(plain, images, norm), rtol=0.01)


# 25, 26: the last iterate, and no gradient at all


@pytest.mark.parametrize("name", ["bim", "pgd", "mim", "least_likely"])
def test_the_best_iterate_comes_back_and_not_the_last(name):
    """Success only in a thin layer, which steps as long as the ball jump over again and again."""
    images, labels = torch.full((1, 4), 0.5), torch.tensor([0])

    def layered(x):
        reach = (x - 0.5).sum(dim=1)
        other = torch.where((reach > 0.05) & (reach < 0.25), reach, 0.9 * reach - 1.0)
        return torch.stack([torch.zeros_like(reach), other], dim=1)

    found = call(name, layered, images, labels, eps=0.1, step_size=0.05, steps=7, random_start=False)
    assert fooled(layered(found), labels).all()


@pytest.mark.parametrize("name", ["bim", "pgd", "mim", "apgd", "least_likely"])
def test_a_success_on_the_way_is_not_lost(name):
    """The answer is another at the third pass only."""
    linear, images, labels = problem(2, 49, count=8)
    asked = []

    def blinks(x):
        asked.append(x.detach().clone())
        return linear(x).flip(1) if len(asked) == 3 else linear(x)

    found = call(name, blinks, images[:1], labels[:1], eps=1e-3)
    assert torch.equal(found, asked[2]) and not torch.equal(found, asked[-1])


@pytest.mark.parametrize("name", ["bim", "pgd", "mim", "apgd", "least_likely"])
def test_the_last_iterate_counts(name):
    """After one step from an image that fools nobody, the last iterate is the only one that can."""
    model, images, labels = problem(2, 49, count=4, seed=28)
    found = call(name, model, images, labels, eps=0.3, step_size=0.3, steps=1, random_start=False)
    assert fooled(model(found), labels).all() and not fooled(model(images), labels).any()


@pytest.mark.parametrize("name", [name for name in BUDGET if name in GRADIENT])
def test_of_the_fooling_iterates_the_one_of_highest_loss_comes_back(name):
    if name == "fgsm":
        return  # has but one
    model, images, labels = problem(2, 49, count=6, seed=26)
    eps = 4 * float(needed(model, images, labels, "linf").max())
    found = call(name, model, images, labels, eps=eps, steps=20, loss="margin")
    slope = (model.weights[1 - labels] - model.weights[labels]).detach()
    assert margin(model(found), labels).allclose(
        margin(model((images + eps * slope.sign()).clamp(0, 1)), labels), rtol=0.02
    )


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_the_best_restart_is_kept_for_each_image(name):
    """A model that only some starts can fool: more restarts never lose an image that fewer had."""

    def rugged(x):
        gain = torch.sin(40 * x).sum(dim=1) - 3.9
        return torch.stack([torch.zeros_like(gain), gain], dim=1)

    images = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(60, dtype=torch.int64)
    values = [
        margin(rugged(call(name, rugged, images, labels, eps=0.1, steps=4, restarts=restarts)), labels)
        for restarts in (1, 2, 5)
    ]
    assert (values[1] >= values[0]).all() and (values[2] >= values[1]).all()
    counts = [int((value > 0).sum()) for value in values]
    assert counts[0] < counts[2]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_exactly_zero_gradient_is_no_crash_and_no_success(name):
    model, images, labels = problem(3, 49, count=3)

    def quantised(x):
        return model((x * 4).round() / 4) + 0 * x.sum()

    labels = quantised(images).argmax(dim=1)
    found = call(name, quantised, images, labels, eps=0.01)
    assert found.isfinite().all() and (found - images).abs().max() <= 0.01
    if name in MINIMAL:
        assert torch.equal(found, images)


# 27, 28, 29: pixel ranges


@pytest.mark.parametrize("name", ATTACKS)
def test_images_a_hair_beyond_one_are_named_and_not_clipped(name):
    model, images, labels = problem(3, 49, count=3)
    images[1, 2] = 1 + 1e-6
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\], got .* to 1\.00000095"):
        call(name, model, images, labels)


def test_eight_bits_keep_the_ball(digits):
    model, _, images, labels = digits
    images, labels = (images[:100] * 255).round() / 255, labels[:100]
    for norm, eps, limit in (("linf", 8 / 255, 8), ("linf", 8.9 / 255, 8), ("l2", 0.5, 0.5 * 255)):
        found = pgd(model, images, labels, eps=eps, norm=norm)
        saved, clean = eight_bits(found, images), (images * 255).round()
        delta = (saved.double() - clean.double()).flatten(1)
        assert delta.norm(dim=1, p=2 if norm == "l2" else torch.inf).max() <= limit
        assert (saved.double() / 255 - found.double()).abs().max() <= 1.001 / 255
        assert delta.abs().max() > 0
        again = eight_bits(saved.float() / 255, images)
        assert torch.equal(again, saved)
        # toward the clean image: what is saved fools no more, and its verdict is another
        assert accuracy(model, saved.float() / 255, labels) >= accuracy(model, found, labels)
    assert torch.equal(eight_bits(images, images).float() / 255, images)


# beyond the list: leaving early is for the source's own verdict only


def test_leaving_early_makes_weaker_images_for_another_model(digits):
    model, other, images, labels = digits
    wanted = {"eps": 0.15, "steps": 10}
    whole = bim(model, images, labels, **wanted)
    early = bim(model, images, labels, leave_early=True, **wanted)
    assert torch.equal(fooled(model(whole), labels), fooled(model(early), labels))
    assert accuracy(other, early, labels) > accuracy(other, whole, labels) + 0.05


def test_draws_average_over_a_randomised_defence():
    """The gradient's sign of one draw is often wrong; the mean over many is right."""
    model, images, labels = problem(2, 49, count=30, seed=27)
    noisy = lambda x: model(x + 4 * torch.randn_like(x).detach() * x)  # noqa: E731
    slope = (model.weights[1 - labels] - model.weights[labels]).detach().sign()
    right = [
        ((call("fgsm", noisy, images, labels, eps=0.01, draws=draws) - images).sign() == slope).double().mean()
        for draws in (1, 40)
    ]
    assert right[1] > right[0] + 0.15
