"""The square attack: answers only. What its random squares must reach, and what they must not need."""

import pytest
import torch
from linear_models import Linear, problem

from s2snet.attacks import Noise, Passes, square
from s2snet.attacks.losses import fooled


def flat(count: int = 6):
    """A linear model whose weights all point one way: the corner that squares can reach is the worst point."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.stack([torch.rand(64, generator=draw), -torch.rand(64, generator=draw)])
    images = 0.3 + 0.4 * torch.rand(count, 1, 8, 8, generator=draw)
    model = Linear(weights, torch.zeros(2))
    with torch.no_grad():
        model.bias[1] = (images.flatten(1) @ (weights[0] - weights[1])).mean() - 3
    labels = model(images).argmax(dim=1)
    return model, images, labels


def test_it_reaches_the_corner_where_squares_can():
    model, images, labels = flat()
    with torch.no_grad():
        lead = (model(images).gather(1, labels[:, None]) - model(images).gather(1, 1 - labels[:, None])).squeeze(1)
    needed = lead / (model.weights[0] - model.weights[1]).sum().detach()
    for k in range(3):
        for factor, success in ((0.9, False), (1.1, True)):
            eps = factor * float(needed[k])
            found = square(model, images[k : k + 1], labels[k : k + 1], eps=eps, steps=300)
            assert bool(fooled(model(found), labels[k : k + 1])) == success, (k, factor)


def test_it_asks_for_no_gradient_and_counts_its_answers():
    model, images, labels = problem(classes=3, pixels=64, count=5)
    quantised = lambda x: model((x * 16).round() / 16).detach()  # noqa: E731
    passes = Passes(5)
    found = square(quantised, images, labels, eps=0.2, steps=60, passes=passes)
    assert fooled(quantised(found), labels).double().mean() > fooled(quantised(images), labels).double().mean()
    assert passes.forwards.tolist() == [61] * 5 and passes.backwards.tolist() == [0] * 5


def test_more_steps_of_the_same_schedule_lose_nothing():
    """A proposal is only kept where it helps, so the best loss never falls."""
    model, images, labels = problem(classes=4, pixels=49, count=12, seed=2)
    losses = []

    def watched(x):
        logits = model(x)
        losses.append(logits)
        return logits

    found = square(watched, images, labels, eps=0.02, steps=50, noise=Noise(1))
    rows = torch.arange(12)

    def margin(logits):
        return (logits.scatter(1, labels[:, None], -torch.inf).amax(1) - logits[rows, labels]).detach()

    best = torch.stack([margin(logits) for logits in losses]).amax(dim=0)
    unfooled = ~fooled(model(found), labels)
    assert unfooled.any()
    assert torch.allclose(margin(model(found))[unfooled], best[unfooled], atol=1e-5)


@pytest.mark.parametrize("area", [0.0, 1.5])
def test_an_area_is_a_share(area):
    model, images, labels = problem(classes=3)
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        square(model, images, labels, eps=0.1, area=area)
