"""Properties of the losses: signs, invariances, few classes, and gradients even if float32 would have none."""

import pytest
import torch
from linear_models import Linear, problem
from torch.nn import functional

from s2snet.attacks import LOSSES, pgd
from s2snet.attacks.losses import clearly_fooled, cross_entropy, dlr, fooled, margin, probability_margin

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 1.75, -3.0], [-7.0, -5.0, -5.5, -9.0, -6.0]], dtype=torch.float64)
LABELS, TARGETS = torch.tensor([0, 1]), torch.tensor([3, 2])


def test_margin_is_the_lead_of_the_best_other_class():
    assert margin(LOGITS, LABELS).tolist() == [-0.25, -0.5]
    assert margin(LOGITS, LABELS, TARGETS).tolist() == [-0.25, -0.5]
    assert margin(LOGITS, 1 - LABELS).tolist() == [3.0, 2.0]
    assert margin(LOGITS, LABELS, torch.tensor([1, 4])).tolist() == [-3.0, -1.0]


def test_dlr_is_the_margin_over_the_spread_of_the_top_logits():
    spread = [2.0 - 0.5, -5.0 + 6.0]
    assert dlr(LOGITS, LABELS).tolist() == pytest.approx([-0.25 / spread[0], -0.5 / spread[1]])
    spread = [2.0 - (0.5 - 1.0) / 2, -5.0 + (6.0 + 7.0) / 2]
    assert dlr(LOGITS, LABELS, TARGETS).tolist() == pytest.approx([-0.25 / spread[0], -0.5 / spread[1]])


def test_dlr_is_a_ratio_from_three_classes_on_and_from_four_with_targets():
    logits, label, target = torch.tensor([[3.0, 1.0, 0.5, 0.0]]), torch.tensor([0]), torch.tensor([1])
    assert dlr(logits[:, :3], label).item() == pytest.approx(-2 / 2.5)
    assert dlr(logits[:, :2], label).item() == -2.0  # the margin
    assert dlr(logits, label, target).item() == pytest.approx(-2 / (3.0 - 0.25))
    assert dlr(logits[:, :3], label, target).item() == -2.0


def test_cross_entropy_is_torchs_where_torchs_is_good():
    want = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    assert torch.equal(cross_entropy(LOGITS, LABELS), want)
    assert torch.equal(
        cross_entropy(LOGITS, LABELS, TARGETS), -functional.cross_entropy(LOGITS, TARGETS, reduction="none")
    )


@pytest.mark.parametrize("name", ["margin", "dlr"])
@pytest.mark.parametrize("targets", [None, TARGETS])
def test_a_shift_of_the_logits_and_log_softmax_change_nothing(name, targets):
    for moved in (LOGITS - 100, LOGITS + 100, LOGITS.log_softmax(dim=1)):
        assert LOSSES[name](moved, LABELS, targets).allclose(LOSSES[name](LOGITS, LABELS, targets), atol=1e-12)


def test_dlr_and_not_margin_is_free_of_scale():
    assert dlr(30 * LOGITS, LABELS).allclose(dlr(LOGITS, LABELS))
    assert margin(30 * LOGITS, LABELS).allclose(30 * margin(LOGITS, LABELS))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_losses_rise_exactly_with_success(name, classes):
    """Pushed up the loss's own gradient, logits end with the label behind, or the target ahead."""
    draw = torch.Generator().manual_seed(classes)
    start = torch.randn(20, classes, generator=draw, dtype=torch.float64)
    labels = start.argmax(dim=1)
    for targets in (None, (labels + 1) % classes):
        logits = start
        for _ in range(80):
            logits.requires_grad_(True)
            before = LOSSES[name](logits, labels, targets)
            assert before.shape == (20,) and before.isfinite().all()
            (gradient,) = torch.autograd.grad(before.sum(), logits)
            logits = (logits + 0.125 * gradient.sign()).detach()
        if name == "dlr" and targets is not None:  # pulls the target above the label, and above no other class
            lead = logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])
            assert (lead > 0).all()
        else:
            assert fooled(logits, labels, targets).all()


@pytest.mark.parametrize("name", ["margin", "probability_margin"])
def test_above_zero_is_fooled(name):
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(500, 4, generator=draw), torch.randint(4, (500,), generator=draw)
    for targets in (None, (labels + 2) % 4):
        assert torch.equal(LOSSES[name](logits, labels, targets) > 0, fooled(logits, labels, targets))


def test_probability_margin_is_in_its_range():
    logits = torch.tensor([[80.0, 0.0, -80.0]])
    assert probability_margin(logits, torch.tensor([0])).item() == pytest.approx(-1)
    assert probability_margin(logits, torch.tensor([2])).item() == pytest.approx(1)


def test_losses_of_half_precision_logits_are_float32():
    for loss in LOSSES.values():
        assert loss(LOGITS.bfloat16(), LABELS).dtype == torch.float32
        assert loss(LOGITS, LABELS).dtype == torch.float64


def test_a_saturated_cross_entropy_keeps_its_direction():
    logits = torch.tensor([[0.0, 300.0, 7.0, 3.0]], requires_grad=True)
    label = torch.tensor([1])
    (plain,) = torch.autograd.grad(functional.cross_entropy(logits, label), logits)
    assert not plain.any()  # what float32 leaves of it
    (ours,) = torch.autograd.grad(cross_entropy(logits, label).sum(), logits)
    others = logits.detach()[0].softmax(dim=0).clone()
    others[[0, 2, 3]] = logits.detach()[0, [0, 2, 3]].softmax(dim=0)  # the odds among the others, by hand
    others[1] = -1
    assert (ours / -ours[0, 1]).allclose(others, atol=1e-5)


def test_cross_entropy_falls_all_the_way_down():
    leads = torch.linspace(0, 400, 4001)
    logits = torch.stack([leads, torch.zeros_like(leads)], dim=1)
    values = cross_entropy(logits, torch.zeros(4001, dtype=torch.int64))
    assert (values.diff() <= 0).all() and (values[leads > 17].diff() < 0).all()
    assert values.allclose(functional.softplus(-leads), atol=3e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_confident_models_fall_where_plain_cross_entropy_stands_still(loss):
    model, images, labels = problem(classes=3, seed=3)
    loud = Linear(model.weights.detach() * 400, model.bias.detach() * 400)
    x = images.clone().requires_grad_(True)
    (plain,) = torch.autograd.grad(functional.cross_entropy(loud(x), labels), x)
    still = ~plain.flatten(1).any(dim=1)
    assert still.sum() >= 4
    found = pgd(loud, images, labels, eps=0.25, loss=loss, random_start=False)
    if loss == "probability_margin":  # saturates by its nature: softmax is part of what it measures
        assert not fooled(loud(found), labels)[still].all()
    else:
        assert fooled(loud(found), labels)[still].all()


def test_nan_and_infinite_answers_are_never_right_and_never_a_target():
    for bad in (torch.nan, torch.inf, -torch.inf):
        logits = torch.tensor([[5.0, bad, 0.0]])
        for label in (0, 1, 2):
            one = torch.tensor([label])
            assert fooled(logits, one).all() and clearly_fooled(logits, one).all()
            assert not fooled(logits, one, one).any() and not clearly_fooled(logits, one, one).any()


def test_an_unknown_loss_is_refused_with_the_known_ones():
    model, images, labels = problem()
    with pytest.raises(ValueError, match=r"loss='ce': allowed are cross_entropy, margin, dlr"):
        pgd(model, images, labels, eps=0.1, loss="ce")
