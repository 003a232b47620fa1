"""Maps, ranks and regions, in closed form."""

import pytest
import torch
from torch import nn

from s2snet.models.regions import attack_map, gradient_x_input, ranks, smooth, soft_top, top


class Linear(nn.Module):
    """Logits that are linear in the image, with known weights."""

    def __init__(self, classes: int = 3, channels: int = 2, size: int = 5):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, channels, size, size, generator=draw), requires_grad=False)

    def forward(self, images):
        return torch.einsum("bchw,kchw->bk", images, self.weight)


def images(count: int = 4, channels: int = 2, size: int = 5) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_smoothing_keeps_a_constant_and_spreads_a_point_as_a_gaussian():
    flat = torch.full((2, 1, 6, 9), 0.3)
    torch.testing.assert_close(smooth(flat, 2.0), flat)
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    spread = smooth(point, 2.0)[0, 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread[15, 17] / spread[15, 15]).item() == pytest.approx(torch.tensor(-0.5).exp().item(), abs=1e-5)
    assert torch.equal(smooth(point, 0), point)


def test_ranks_go_from_0_to_1_and_equal_pixels_share_theirs():
    maps = torch.tensor([[[3.0, 1.0], [2.0, 4.0]], [[5.0, 5.0], [5.0, 5.0]], [[0.0, 0.0], [0.0, 9.0]]])
    third = 1 / 3
    expected = [[[2 * third, 0], [third, 1]], [[0.5, 0.5], [0.5, 0.5]], [[third, third], [third, 1]]]
    torch.testing.assert_close(ranks(maps), torch.tensor(expected))


@pytest.mark.parametrize("q", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_a_region_is_the_highest_pixels_and_of_that_area(q):
    maps = torch.randn(3, 10, 12, generator=torch.Generator().manual_seed(2))
    region = top(maps, q)
    assert region.flatten(1).sum(dim=1).tolist() == [round(q * 120)] * 3
    for values, inside in zip(maps, region, strict=True):
        assert values[inside].min() > values[~inside].max()
    assert not top(torch.zeros(1, 10, 12), q).any()  # a flat map has no region


def test_the_soft_region_is_half_at_the_rim_and_the_region_when_cold():
    maps = torch.randn(3, 10, 12, generator=torch.Generator().manual_seed(3))
    cold, warm = soft_top(maps, 0.2, 1e-5), soft_top(maps, 0.2, 0.1)
    assert torch.equal(cold > 0.5, top(maps, 0.2)) and torch.equal(warm > 0.5, top(maps, 0.2))
    assert ((cold < 1e-3) | (cold > 1 - 1e-3)).all()


def test_gradient_x_input_of_a_linear_classifier_is_its_terms():
    model, x = Linear(), images().requires_grad_()
    predicted = torch.tensor([0, 1, 2, 1])
    expected = (model.weight[predicted] * x).abs().sum(dim=1, keepdim=True)
    torch.testing.assert_close(gradient_x_input(model, x, predicted), expected)


def test_the_attack_map_is_the_cross_entropys_gradient_over_the_odds():
    model, x = Linear().double(), images().double().requires_grad_()
    predicted = model(x).argmax(dim=1)
    start = torch.zeros(1, *x.shape[1:])
    loss = nn.functional.cross_entropy(model(x), predicted, reduction="sum")
    (slope,) = torch.autograd.grad(loss, x)
    wrong = 1 - model(x).softmax(dim=1).gather(1, predicted[:, None])
    expected = slope.abs().sum(dim=1, keepdim=True) / wrong[:, :, None, None]
    torch.testing.assert_close(attack_map(model, x, predicted, start), expected)


def test_a_sure_classifier_has_an_attack_map_all_the_same():
    model, x = Linear(), images().requires_grad_()
    model.weight *= 1000
    predicted = model(x).argmax(dim=1)
    found = attack_map(model, x, predicted, torch.zeros(2, *x.shape[1:]))
    assert found.isfinite().all() and (found.flatten(1).amax(dim=1) > 1).all()
