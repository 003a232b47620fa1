"""The active test: plants that only an attack that climbs can find."""

from functools import partial

import pytest
import torch
from torch import nn

from s2snet.attacks import Noise, pgd
from s2snet.audit.probes import planted
from s2snet.models import Defended

EPS = 0.1
IMAGES = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Reversed(torch.autograd.Function):
    """The images as they are; a gradient that points the other way."""

    @staticmethod
    def forward(ctx, images):
        return images.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Backwards(nn.Module):
    def forward(self, images):
        return Reversed.apply(images)


def network(width: int = 20) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, width), nn.Tanh(), nn.Linear(width, 3)).eval()


def measured(module: nn.Module, **options) -> dict:
    attack = partial(pgd, eps=EPS, norm="linf", noise=Noise(0, torch.arange(len(IMAGES))), **options)
    return planted.active(module.eval(), {"exact pgd": (module, attack)}, IMAGES, EPS, seed=0)


@pytest.mark.parametrize("width", [20, 700])  # narrower and wider than what is drawn
def test_an_attack_that_climbs_finds_the_plants(width):
    found = measured(Defended(None, network(width)), steps=20)
    assert found["images"] == found["any"] == found["found"]["exact pgd"] == len(IMAGES)
    assert found["by_chance"] < 0.01


def test_one_that_goes_the_other_way_or_stands_still_does_not():
    assert measured(Defended(Backwards(), network()), steps=20)["any"] == 0
    assert measured(Defended(None, network()), steps=1, step_size=EPS / 100, random_start=False)["any"] == 0


def test_a_module_without_a_linear_layer_is_read_at_its_logits():
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()).eval()
    assert measured(Defended(None, convolution), steps=20)["any"] == len(IMAGES)


def test_a_constant_has_no_plants():
    class Constant(nn.Module):
        def forward(self, images):
            return 0 * images.flatten(1)[:, :3]

    assert measured(Defended(None, Constant()), steps=2)["images"] == 0


def test_another_batch_is_refused():
    readout = planted.Readout(planted.Features(network()), torch.zeros(2, 20).double(), torch.zeros(2).double())
    with pytest.raises(ValueError, match="8 images for 2 readouts"):
        readout(IMAGES)
