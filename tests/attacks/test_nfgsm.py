"""N-FGSM: one signed step from noise, clipped to the box, not to the ball."""

import pytest
import torch
from linear_models import Linear, problem

from s2snet.attacks import ATTACKS, TRAINING, Noise, Passes, nfgsm


def test_it_trains_and_never_evaluates():
    assert TRAINING["nfgsm"] is nfgsm and "nfgsm" not in ATTACKS


def test_a_linear_model_is_stepped_along_the_sign_of_its_gradient_from_the_noise():
    model, images, labels = problem(classes=2, box=False, count=6)
    images = 0.3 + 0.4 * images  # away from the box
    noise, eps, rows = Noise(5, range(6)), 0.02, torch.arange(6)
    start = images + (2 * noise.uniform(images, rows) - 1) * 2 * eps
    leaning = start.requires_grad_(True)
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(leaning), labels), leaning)
    attacked = nfgsm(model, images, labels, eps=eps, noise=noise)
    assert torch.allclose(attacked, start.detach() + eps * gradient.sign(), atol=1e-7)
    distance = (attacked - images).abs().amax(dim=1)
    assert (distance > eps).all() and (distance <= 3 * eps + 1e-6).all()  # beyond the ball, as the paper wants


def test_without_noise_it_is_the_fast_gradient_sign_method_inside_the_box():
    model, images, labels = problem(classes=3, box=True, count=5)
    attacked = nfgsm(model, images, labels, eps=0.1, noise_scale=0.0)
    assert torch.allclose(attacked, ATTACKS["fgsm"](model, images, labels, eps=0.1), atol=1e-6)
    assert attacked.min() >= 0 and attacked.max() <= 1


def test_noise_follows_the_image_and_the_seed_and_passes_are_counted():
    model, images, labels = problem(classes=2, box=False, count=4)
    whole = nfgsm(model, images, labels, eps=0.05, noise=Noise(1, [7, 8, 9, 10]))
    part = nfgsm(model, images[2:], labels[2:], eps=0.05, noise=Noise(1, [9, 10]))
    assert torch.equal(whole[2:], part)
    assert not torch.equal(whole, nfgsm(model, images, labels, eps=0.05, noise=Noise(2, [7, 8, 9, 10])))
    passes = Passes(4)
    nfgsm(model, images, labels, eps=0.05, passes=passes)
    assert passes.forwards.tolist() == passes.backwards.tolist() == [1] * 4


def test_bad_options_and_an_empty_batch():
    model, images, labels = problem(classes=2, box=False, count=2)
    with pytest.raises(ValueError, match="noise_scale=-1: expected at least 0"):
        nfgsm(model, images, labels, eps=0.1, noise_scale=-1)
    with pytest.raises(ValueError, match="linf"):
        nfgsm(model, images, labels, eps=0.1, norm="l2")
    assert nfgsm(model, images[:0], labels[:0], eps=0.1).shape == images[:0].shape
    assert isinstance(model, Linear)
