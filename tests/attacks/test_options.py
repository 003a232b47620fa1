"""Every option of an attack is heeded: another value makes another way, and the way that it says."""

import pytest
import torch
from linear_models import ATTACKS, BUDGET, GRADIENT, call, options, problem

from s2snet.attacks import LOSSES, Passes
from s2snet.attacks.losses import fooled, margin

CLIMBERS = [name for name in BUDGET if name in GRADIENT]
# two values of each option that shapes an attack's way, where both make a way of their own
VALUES = [
    *((name, "step_size", 0.01, 0.02) for name in ("bim", "pgd", "mim", "least_likely", "ddn", "fmn", "cw")),
    ("apgd", "momentum", 0.0, 0.5),
    ("mim", "momentum", 0.0, 1.0),
    ("apgd", "rho", 0.1, 1.0),
    *((name, "gamma", 0.01, 0.2) for name in ("ddn", "fmn")),
    ("ddn", "eps_start", 0.1, 0.3),
]


def asked_by(name, model, images, labels, **wanted):
    """Every point at which the attack asks the model, in order."""
    asked = []

    def watched(x):
        asked.append(x.detach().clone())
        return model(x)

    call(name, watched, images, labels, **wanted)
    return asked


TOP, SLOPES = 0.5 + torch.linspace(0.02, 0.15, 9), torch.tensor([1.0, 7.0, 1.0, 7.0, 1.0, 7.0, 1.0, 7.0, 1.0])


def bowl(x):
    """Two classes; the second wins near TOP, around which steps turn back."""
    other = 0.1 - ((x - TOP).abs() ** 1.5 * SLOPES).sum(dim=1)
    return torch.stack([torch.zeros_like(other), other], dim=1)


@pytest.mark.parametrize(("name", "option", "one", "other"), VALUES)
def test_two_values_make_two_ways(name, option, one, other):
    assert option in options(name, {option: one})
    images, labels = torch.full((1, 9), 0.5), torch.zeros(1, dtype=torch.int64)
    ways = [asked_by(name, bowl, images, labels, eps=0.2, steps=30, **{option: value}) for value in (one, other)]
    assert any(not torch.equal(a, b) for a, b in zip(*ways, strict=False))


def test_ddns_first_step_is_as_long_as_its_first_radius():
    model, images, labels = problem(4, 49, count=3)
    for radius in (0.05, 0.2):
        asked = asked_by("ddn", model, images, labels, eps_start=radius)
        first = next(x for x in asked if not torch.equal(x, images))
        assert (first - images).norm(dim=1).allclose(torch.tensor(radius), rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in ATTACKS if options(name, {"loss": 0})])
def test_the_loss_and_the_targets_asked_for_are_those_climbed(name, monkeypatch):
    asked = []

    def spy(logits, labels, targets=None):
        asked.append(targets)
        return margin(logits, labels, targets)

    monkeypatch.setitem(LOSSES, "spy", spy)
    model, images, labels = problem(4, 49, count=3)
    call(name, model, images, labels, loss="spy")
    assert asked
    if name != "least_likely":
        asked.clear()
        call(name, model, images, labels, loss="spy", targets=(labels + 1) % 4)
        assert asked and all(targets is not None for targets in asked)


@pytest.mark.parametrize("name", [name for name in CLIMBERS if name not in ("fgsm", "least_likely")])
def test_among_many_classes_the_target_counts_and_no_other(name):
    model, images, labels = problem(5, 49, count=4, seed=10)
    for shift in (1, 3):
        targets = (labels + shift) % 5
        found = call(name, model, images, labels, eps=0.3, targets=targets, steps=40)
        assert fooled(model(found), labels, targets).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_draws_are_made_one_at_a_time_and_all_of_them(name):
    """Never two graphs at once: before the next pass with a gradient the last one went backward."""
    linear, images, labels = problem(4, 49, count=3)
    held, worst = [], []

    def model(x):
        if x.requires_grad:
            held.append(0)
            worst.append(len(held))
            x.register_hook(lambda gradient: held.clear())
        return linear(x)

    passes = Passes(3)
    call(name, model, images, labels, draws=3, passes=passes)
    assert max(worst, default=1) == 1
    assert passes.forwards.min() > 0 and not passes.forwards.remainder(3).any()


@pytest.mark.parametrize("name", CLIMBERS)
def test_the_start_is_the_image_unless_it_is_to_be_random(name):
    model, images, labels = problem(4, 49, count=3)
    assert torch.equal(asked_by(name, model, images, labels, random_start=False)[0], images)
    start = asked_by(name, model, images, labels, random_start=True)[0]
    assert torch.equal(start, images) == (name not in ("pgd", "apgd"))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_mim_walks_the_papers_way(momentum):
    """Algorithm 1 of arXiv 1710.06081 by hand; gradients turn and differ in length, so that sum and scaling show."""
    top = torch.tensor([0.523, 0.567], dtype=torch.float64)

    def model(x):
        other = -((x - top).abs() ** 1.5 * torch.tensor([1.0, 7.0])).sum(dim=1) - 1
        return torch.stack([torch.zeros_like(other), other], dim=1)

    image = torch.full((1, 2), 0.5, dtype=torch.float64)
    wanted = {"eps": 0.1, "steps": 12, "step_size": 0.02, "momentum": momentum, "loss": "margin"}
    asked = asked_by("mim", model, image, torch.zeros(1, dtype=torch.int64), **wanted)
    x, total = image[0], torch.zeros(2, dtype=torch.float64)
    for seen in asked:
        assert seen[0].allclose(x, atol=1e-9)
        slope = -1.5 * (x - top).abs() ** 0.5 * (x - top).sign() * torch.tensor([1.0, 7.0])
        total = momentum * total + slope / slope.abs().sum()
        x = (x + 0.02 * total.sign()).clamp(0.4, 0.6)
    assert len(asked) == 13
