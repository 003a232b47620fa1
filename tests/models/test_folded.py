"""The faster copy for crafting: its answers are the network's up to rounding, and where they are not, there is none."""

import pytest
import torch
from torch import nn

from s2snet.models import MODULES, build
from s2snet.models.folded import folded

SMALL = {
    "mlp": {"size": 16},
    "subspace": {"size": 16},
    "segnet": {"channels": 1, "widths": [2, 4], "convs": [1, 1], "mean": [0.5], "std": [0.5]},
    "neutralised": {"size": 16},
    "neutralised_per_input": {"size": 16, "classifier": {"name": "small_cnn", "widths": [4, 8]}},
}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("torchvision", "timm", "custom")])
def test_the_copy_answers_alike_and_leaves_the_original(name):
    torch.manual_seed(0)
    module = build(name, **SMALL.get(name, {}))
    images = torch.rand(16, 1, 16, 16)
    module(images)  # running statistics that are not the initial ones
    module.eval()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with torch.no_grad():
        expected = module(images)
        copied = folded(module, images[:4])
        assert copied is not module
        torch.testing.assert_close(copied(images), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(module(images), expected)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


class Twice(nn.Module):
    """Uses its convolution's output past the BatchNorm too: folding would change what it says."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.norm.running_mean += 3

    def forward(self, images):
        x = self.convolution(images)
        return (self.norm(x) + x).flatten(1)


class Random(nn.Module):
    def forward(self, images):
        return torch.rand_like(images).flatten(1)


@pytest.mark.parametrize("kind", [Twice, Random])
def test_what_cannot_be_folded_comes_back_itself(kind):
    module = kind().eval()
    assert folded(module, torch.rand(2, 1, 8, 8)) is module
