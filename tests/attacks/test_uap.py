"""One perturbation for all images: where the best one is known, what it may not do, what it leaves alone."""

from itertools import pairwise

import pytest
import torch
from linear_models import Linear
from torch import nn

from s2snet.attacks import uap


def one_class(norm=None, pixels=24):
    """A linear model and images of one class alone: the best perturbation is the same for all, and known."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(2, pixels, generator=draw)
    slope = weights[1] - weights[0]
    best = {"linf": slope.sign(), "l2": slope / slope.norm(), None: slope}[norm]
    images = 0.4 + 0.2 * torch.rand(30, pixels, generator=draw)
    return Linear(weights, torch.tensor([0.0, -50.0])), images, torch.zeros(30, dtype=torch.int64), best


def batches(images, labels, size=10):
    while True:
        yield from zip(images.split(size), labels.split(size), strict=True)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_where_all_images_lean_the_same_way_it_is_the_steepest_direction(norm, loss):
    model, images, labels, best = one_class(norm)
    found = uap(model, batches(images, labels), eps=0.1, norm=norm, loss=loss)
    assert found.shape == images.shape[1:]
    assert found.allclose(0.1 * best, atol=1e-6)


def test_it_compromises_between_classes_as_the_sum_of_gradients_says():
    """Of 9 images of one class and 1 of the other, in two classes, the many win."""
    model, images, labels, best = one_class("linf")
    model.bias.data.zero_()
    mixed = labels.clone()
    mixed[::10] = 1
    assert uap(model, batches(images, mixed), eps=0.1, cap=1e9).allclose(0.1 * best, atol=1e-6)


def test_an_image_that_is_fooled_by_more_than_cap_pulls_no_more():
    model, images, labels, _ = one_class()
    model.bias.data.copy_(torch.tensor([-100.0, 0.0]))  # all are fooled as they are, by far
    assert not uap(model, batches(images, labels), eps=0.1, cap=1.0).any()
    assert uap(model, batches(images, labels), eps=0.1, cap=1e9).any()


def test_pixels_that_the_box_stops_pull_no_more():
    model, images, labels, best = one_class("linf")
    images = images.clone()
    images[:, 0] = float(best[0] > 0)  # already where the gradient would have it
    found = uap(model, batches(images, labels), eps=0.1, steps=20)
    assert found[0] == 0 or found[0].abs() <= 10 * 0.1 / 20 + 1e-6  # one step beyond and no further
    assert found[1:].allclose(0.1 * best[1:], atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.3, 1.0])
def test_it_is_no_longer_than_eps(norm, eps):
    model, images, labels, _ = one_class()
    found = uap(model, batches(images, labels), eps=eps, norm=norm, steps=7).double()
    assert (found.abs().max() if norm == "linf" else found.norm()) <= eps * (1 + 1e-6)


def test_it_takes_as_many_batches_as_steps_and_as_many_as_there_are():
    model, images, labels, _ = one_class()
    taken = []

    def counted(count):
        for batch, _ in zip(batches(images, labels), range(count), strict=False):
            taken.append(1)
            yield batch

    uap(model, counted(100), eps=0.1, steps=7)
    assert len(taken) in (7, 8)  # one may have been asked for and left
    taken.clear()
    uap(model, counted(3), eps=0.1, steps=7)
    assert len(taken) == 3


def test_the_module_and_the_random_state_are_as_before():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(24), nn.Linear(24, 2)

        def forward(self, images):
            return self.linear(self.norm(images + 0.1 * torch.randn_like(images)))

    model = Noisy().train()
    model.linear.weight.grad = torch.ones(2, 24)
    before, drawn = {key: value.clone() for key, value in model.state_dict().items()}, torch.random.get_rng_state()
    _, images, labels, _ = one_class()
    first = uap(model, batches(images, labels), eps=0.1, steps=5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert model.training and model.linear.weight.requires_grad and model.linear.weight.grad.all()
    torch.randn(3)
    assert torch.equal(uap(model, batches(images, labels), eps=0.1, steps=5), first)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"eps": 8.0}, "did you mean 8/255"),
        ({"eps": -0.1}, "at least 0"),
        ({"norm": "l1"}, "allowed are linf, l2"),
        ({"steps": 0}, "steps=0: at least 1"),
        ({"step_size": 0.0}, "step_size=0.0: must be above 0"),
        ({"loss": "mragin"}, "mragin"),
    ],
)
def test_bad_input_is_one_line(given, line):
    model, images, labels, _ = one_class()
    with pytest.raises(ValueError) as error:
        uap(model, batches(images, labels), **{"eps": 0.1, **given})
    assert line in str(error.value) and "\n" not in str(error.value)


def test_without_training_images_it_says_so():
    with pytest.raises(ValueError, match="training images, got none"):
        uap(one_class()[0], [], eps=0.1)


@pytest.mark.parametrize(("given", "length"), [({}, 10 * 0.5 / 8), ({"step_size": 0.02}, 0.02)])
def test_steps_are_as_long_as_it_says_and_fall_to_nothing(given, length):
    model, images, labels, _ = one_class()
    asked = []

    def watched(x):
        asked.append(x.detach().clone())
        return model(x)

    found = uap(watched, batches(images[:10], labels[:10]), eps=0.5, norm="l2", steps=8, cap=1e9, **given)
    moved = [(x - images[:10]).mean(dim=0) for x in asked] + [found]
    for step, (before, after) in enumerate(pairwise(moved)):
        wanted = min(length * (1 - step / 8), 0.5 - float(before.norm()))  # to the rim and no further
        assert float((after - before).norm()) == pytest.approx(wanted, abs=1e-5)


def test_draws_are_averaged():
    asked = []

    def model(x):
        asked.append(1)
        return Linear(torch.eye(2, 24), torch.zeros(2))(x)

    _, images, labels, _ = one_class()
    uap(model, batches(images, labels), eps=0.1, steps=5, draws=3)
    assert len(asked) == 15
