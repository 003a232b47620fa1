"""Minimal attacks against distances known exactly; failures, subspaces, confidence, binary images."""

import pytest
import torch
from linear_models import ATTACKS, MINIMAL, Linear, call, nearest, needed, problem

from s2snet.attacks import Passes, cw, deepfool, lbfgs
from s2snet.attacks.balls import distance
from s2snet.attacks.losses import fooled, margin

MINIMAL_NORMS = [(name, norm) for name in MINIMAL for norm in ATTACKS[name].norms]
# deepfool adds its steps up, and lbfgs's weighted sum has no minimum on the rim where the margin is convex
CURVED = ("cw", "ddn", "fmn")
MEDIAN = {"deepfool": 1.01, "cw": 1.03, "ddn": 1.03, "fmn": 1.03, "lbfgs": 1.05}


def in_float64(model, found, labels, targets=None):
    return fooled(Linear(model.weights.detach().double(), model.bias.double())(found.double()), labels, targets)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize(("name", "norm"), MINIMAL_NORMS)
def test_distances_are_the_closed_forms(name, norm, classes):
    """Of images in the middle of the box, and of as many whose every other pixel is exactly 0 or 1."""
    count = 2 if name == "lbfgs" else 40
    model, inside, _ = problem(classes, 49, count=count, seed=7, spread=3)
    images = torch.cat([inside, problem(classes, 49, count=count, seed=7, box=True, spread=3)[1]])
    labels = model(images).argmax(dim=1)
    radius = needed(model, images, labels, norm)
    assert radius.isfinite().all()
    found = ATTACKS[name](model, images, labels, norm=norm)
    assert in_float64(model, found, labels).all()
    for ratio in (distance(found, images, norm) / radius).split(count):
        assert ratio.min() >= 1 - 1e-9
        assert ratio.median() <= MEDIAN[name]
        assert ratio.quantile(0.95) <= 1.10


@pytest.mark.parametrize(("name", "norm"), MINIMAL_NORMS)
def test_where_most_pixels_meet_the_box(name, norm):
    """The label's lead is so large that three quarters of the way to the farthest corner is needed."""
    model, images, labels = problem(2, 49, count=4, seed=8, box=True)
    slope = model.weights[1] - model.weights[0]
    labels = torch.zeros_like(labels)
    corner = (((slope > 0).float() - images) * slope).sum(dim=1)  # the most that class 1 can gain
    with torch.no_grad():
        lead = -(images @ slope).mean() - 0.75 * corner.mean()
        model.bias.copy_(torch.tensor([0.0, 1.0]) * lead)
    assert torch.equal(model(images).argmax(dim=1), labels)
    radius = needed(model, images, labels, norm)
    assert radius.isfinite().all()
    found = ATTACKS[name](model, images, labels, norm=norm)
    assert in_float64(model, found, labels).all()
    assert (distance(found, images, norm) / radius).max() <= 1.10


@pytest.mark.parametrize(("name", "norm"), [pair for pair in MINIMAL_NORMS if pair[0] in CURVED])
def test_a_curved_boundary_is_met_at_its_nearest_point(name, norm):
    """The label is the inside of an ellipse; gradients inside it point elsewhere than to the nearest rim."""
    axes = torch.tensor([0.2, 0.4])

    def model(x):
        other = ((x - 0.5) / axes).square().sum(dim=1) - 1
        return torch.stack([torch.zeros_like(other), other], dim=1)

    images = 0.5 + torch.tensor([[0.05, 0.15], [-0.02, 0.2], [0.1, -0.1], [0.02, 0.25]])
    labels = torch.zeros(4, dtype=torch.int64)
    angle = torch.linspace(0, 2 * torch.pi, 100001, dtype=torch.float64)
    rim = 0.5 + torch.stack([angle.cos(), angle.sin()], dim=1) * axes
    gaps = rim[None] - images[:, None].double()
    nearest = (gaps.norm(dim=2) if norm == "l2" else gaps.abs().amax(dim=2)).amin(dim=1)
    found = ATTACKS[name](model, images, labels, norm=norm)
    assert fooled(model(found.double()), labels).all()
    ratio = distance(found, images, norm) / nearest
    assert ratio.min() >= 1 - 1e-4 and ratio.max() <= 1.03


@pytest.mark.parametrize("name", MINIMAL)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_distances_do_not_depend_on_the_scale_of_the_logits(name, scale):
    model, images, labels = problem(4, 49, count=2, seed=9)
    scaled = Linear(model.weights.detach() * scale, model.bias.detach() * scale)
    radius = needed(model, images, labels, "l2")
    found = nearest(name, scaled, images, labels, norm="l2")
    assert fooled(scaled(found), labels).all()
    assert (distance(found, images, "l2") / radius).median() <= 1.05


@pytest.mark.parametrize(("name", "norm"), MINIMAL_NORMS)
def test_a_target_is_reached_at_its_distance(name, norm):
    model, images, labels = problem(2, 49, count=5, seed=10)
    targets = 1 - labels
    found = nearest(name, model, images, labels, norm=norm, targets=targets)
    assert in_float64(model, found, labels, targets).all()
    assert (distance(found, images, norm) / needed(model, images, labels, norm)).max() <= 1.05


@pytest.mark.parametrize("name", MINIMAL)
def test_each_of_many_targets_is_reached(name):
    model, images, labels = problem(5, 49, count=2, seed=10)
    images, labels = images.repeat(2, 1), labels.repeat(2)
    targets = (labels + torch.tensor([1, 1, 3, 3])) % 5
    found = nearest(name, model, images, labels, norm="l2", targets=targets)
    assert in_float64(model, found, labels, targets).all()


@pytest.mark.parametrize("name", MINIMAL)
def test_a_failure_is_the_clean_image(name):
    """Class 0 leads by more than any image in [0, 1] can take back, for every second image."""
    weights = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    model = Linear(weights, torch.tensor([0.0, -0.5, -9.0]))
    images = torch.tensor([[0.1, 0.1, 0.3], [0.2, 0.0, 0.9], [0.0, 0.0, 0.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    found = call(name, model, images, labels, steps=40)
    assert fooled(model(found), labels).all()
    model.bias.data[1] = -2.5
    assert torch.equal(call(name, model, images, labels, steps=40), images)
    unreachable = torch.full_like(labels, 2)
    assert torch.equal(call(name, model, images, labels, targets=unreachable, steps=40), images)


@pytest.mark.parametrize("name", MINIMAL)
def test_images_that_are_wrong_already_come_back_at_one_forward(name):
    model, images, labels = problem(4, 49, count=5, seed=11)
    wrong = (labels + 1) % 4
    passes = Passes(5)
    assert torch.equal(ATTACKS[name](model, images, wrong, passes=passes), images)
    assert passes.forwards.tolist() == [1] * 5 and not passes.backwards.any()


@pytest.mark.parametrize("name", MINIMAL)
def test_the_last_word_has_a_forward_pass(name):
    """A module that answers otherwise the second time it sees an image: fooling once is a failure."""
    linear, images, labels = problem(2, 49, count=3, seed=12)
    seen = {}

    def forgetful(x):
        logits = linear(x)
        sure = torch.nn.functional.one_hot(labels[:1].expand(len(x)), 2) * 100.0
        for k, one in enumerate(x.detach()):
            key = one.numpy().tobytes()
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > 1 and not any(torch.equal(one, image) for image in images):
                logits = torch.where(torch.arange(len(x))[:, None] == k, sure + 0 * logits, logits)
        return logits

    labels = labels[:1].expand(3)
    images = images[linear(images).argmax(dim=1) == labels]
    labels = labels[: len(images)]
    found = call(name, forgetful, images, labels, bisections=3)
    assert torch.equal(found, images)


@pytest.mark.parametrize("name", MINIMAL)
def test_a_plateau_or_nan_is_no_crash_and_nothing_moves_without_cause(name):
    images, labels = torch.full((2, 6), 0.5), torch.zeros(2, dtype=torch.int64)
    flat = Linear(torch.zeros(2, 6), torch.tensor([1.0, 0.0]))
    assert torch.equal(call(name, flat, images, labels), images)
    broken = Linear(torch.full((2, 6), torch.nan), torch.zeros(2))
    assert torch.equal(call(name, broken, images, labels), images)  # fooled as it is, at distance 0


@pytest.mark.parametrize("kappa", [0.5, 3.0])
def test_kappa_is_the_margin(kappa):
    model, images, labels = problem(3, 49, count=8, seed=13)
    found = nearest("cw", model, images, labels, kappa=kappa)
    sure = margin(model.double()(found.double()), labels)
    assert (sure >= kappa).all() and (sure <= 1.1 * kappa + 0.01).all()
    assert (distance(found, images, "l2") > distance(nearest("cw", model.float(), images, labels), images, "l2")).all()


def test_kappa_is_what_the_loss_asks_for():
    """The first c is right for a linear model, and with the hinge at kappa one search is enough."""
    model, images, labels = problem(2, 49, count=4, seed=13)
    found = cw(model, images, labels, kappa=3.0, searches=1)
    assert (margin(model(found), labels) >= 3).all()


def test_a_margin_out_of_reach_is_a_failure():
    model, images, labels = problem(2, 9, count=3, seed=13)
    assert torch.equal(cw(model, images, labels, kappa=1e4, steps=20, searches=3), images)
    with pytest.raises(ValueError, match="kappa=-1"):
        cw(model, images, labels, kappa=-1)


@pytest.mark.parametrize("name", MINIMAL)
def test_binary_images_are_fooled(name):
    draw = torch.Generator().manual_seed(0)
    images = (torch.rand(5, 1, 7, 7, generator=draw) > 0.5).float()
    model = Linear(torch.randn(3, 49, generator=draw), torch.zeros(3))
    labels = model(images).argmax(dim=1)
    found = nearest(name, model, images, labels, norm="l2")
    assert fooled(model(found), labels).all()
    ratio = distance(found, images, "l2") / needed(model, images, labels, "l2")
    assert ratio.median() <= 1.03 and ratio.quantile(0.95) <= 1.1


def test_abort_early_saves_passes_and_little_else():
    model, images, labels = problem(3, 49, count=8, seed=14)
    short, full = Passes(8), Passes(8)
    early = cw(model, images, labels, searches=2, passes=short)
    whole = cw(model, images, labels, searches=2, abort_early=False, passes=full)
    assert short.backwards.sum() < 0.9 * full.backwards.sum()
    assert (distance(early, images, "l2") / distance(whole, images, "l2")).max() < 1.02


def test_a_weight_of_ones_own_is_searched_from_there():
    model, images, labels = problem(2, 49, count=2, seed=15)
    radius = needed(model, images, labels, "l2")
    for attack in (cw, lbfgs):
        for weight in (1e-4, 1e2):
            found = attack(model, images, labels, weight=weight, searches=10)
            assert (distance(found, images, "l2") / radius).max() <= 1.05


@pytest.mark.parametrize("d", [1, 5, 49])
def test_a_confined_perturbation_lies_in_its_subspace(d):
    model, images, labels = problem(2, 49, count=6, seed=16)
    basis = torch.linalg.qr(torch.randn(49, d, generator=torch.Generator().manual_seed(1))).Q
    slope = (model.weights[1 - labels] - model.weights[labels]).detach().double()
    lack = -margin(model(images), labels).double()
    want = lack / (slope @ basis.double()).norm(dim=1)  # the hyperplane's distance within the span
    found = deepfool(model, images, labels, subspace=basis, box=False)
    delta = (found - images).double()
    assert (delta - delta @ basis.double() @ basis.double().T).norm(dim=1).max() < 1e-5 * (1 + delta.norm(dim=1).max())
    assert fooled(model(found), labels).all()
    assert (distance(found, images, "l2") / want).allclose(torch.ones(6).double(), rtol=0.01)
    boxed = deepfool(model, images, labels, subspace=basis)
    inside = ((found >= 0) & (found <= 1)).all(dim=1)
    assert boxed[inside].allclose(found[inside], atol=1e-4) and torch.equal(boxed[~inside], images[~inside])


def test_a_subspace_is_checked():
    model, images, labels = problem(2, 49, count=2)
    with pytest.raises(ValueError, match="not orthonormal"):
        deepfool(model, images, labels, subspace=torch.ones(49, 2))
    with pytest.raises(ValueError, match=r"\[49, d\]"):
        deepfool(model, images, labels, subspace=torch.eye(48))
    with pytest.raises(ValueError, match=r"norm l2, got .* norm linf"):
        deepfool(model, images, labels, subspace=torch.eye(49), norm="linf")
    with pytest.raises(ValueError, match="box=False requires a subspace"):
        deepfool(model, images, labels, box=False)


def test_the_overshoot_is_taken_back():
    model, images, labels = problem(2, 49, count=6, seed=17)
    radius = needed(model, images, labels, "l2")
    left = deepfool(model, images, labels, overshoot=0.5, bisections=0)
    assert (distance(left, images, "l2") / radius > 1.4).all()
    taken = deepfool(model, images, labels, overshoot=0.5)
    assert (distance(taken, images, "l2") / radius < 1.002).all()
