"""`BitDepth`: its levels, its zero gradient, and the slope of its soft rounding."""

import pytest
import torch

from s2snet.models import Defended, build
from s2snet.threats import ROUTES

IMAGES = torch.rand(4, 3, 6, 7, generator=torch.Generator().manual_seed(0))


def gradient(output: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(output.sum(), images)[0]


@pytest.mark.parametrize("bits", range(1, 9))
def test_it_has_as_many_levels_as_its_bits(bits):
    levels = build("bit_depth", bits=bits)(torch.linspace(0, 1, 4001).view(1, 1, 1, -1)).unique()
    torch.testing.assert_close(levels, torch.linspace(0, 1, 2**bits))


def test_eight_bits_keep_an_image_of_eight_bits_and_rounding_twice_changes_nothing():
    images = torch.randint(256, (2, 1, 8, 8)) / 255
    assert torch.equal(build("bit_depth", bits=8)(images), images)
    purifier = build("bit_depth", bits=3)
    assert torch.equal(purifier(purifier(IMAGES)), purifier(IMAGES))


def test_exact_gradients_are_zero_and_soft_ones_are_not():
    purifier, images = build("bit_depth", bits=3), IMAGES.clone().requires_grad_()
    assert not gradient(purifier(images), images).any()
    assert ROUTES["soft"].offered(Defended(purifier, torch.nn.Flatten()), False)
    for temperature in (1e-6, 0.1, 100):
        assert torch.equal(purifier.soft(images, temperature), purifier(images))
    assert gradient(purifier.soft(images, 0.1), images).gt(0).all()


def test_soft_slopes_average_one_and_a_high_temperature_is_straight_through():
    purifier = build("bit_depth", bits=2).double()
    images = ((torch.arange(3000).double() + 0.5) / 3000).view(1, 1, 1, -1).requires_grad_()
    for temperature in (0.05, 0.2):
        slopes = gradient(purifier.soft(images, temperature), images).flatten()
        assert slopes.mean() == pytest.approx(1, rel=1e-4)
        assert abs(slopes.argmax() % 1000 - 499.5) <= 0.5  # the middle of a step is the threshold
    torch.testing.assert_close(gradient(purifier.soft(images, 1e4), images), torch.ones_like(images))
    off = slopes.new_tensor([0.1, 0.4]).view(1, 1, 1, 2).requires_grad_()  # 0.2 and 0.3 of a step from a threshold
    assert not gradient(purifier.soft(off, 1e-6), off).any()


@pytest.mark.parametrize("bits", [0, 9, 2.5, True, "3"])
def test_bad_bits_are_one_line(bits):
    with pytest.raises(ValueError, match=rf"^bits={bits}: expected an integer from 1 to 8$"):
        build("bit_depth", bits=bits)
