"""Linear models whose distance to the next class is known exactly, and how tests call attacks."""

import inspect

import torch
from torch import Tensor, nn

from s2snet.attacks import ATTACKS

QUICK = {"steps": 6, "searches": 2, "candidates": 3}
SHORT = {"cw": {"steps": 80, "searches": 5}, "lbfgs": {"searches": 6}}  # of those that take longest
BUDGET = [name for name, attack in ATTACKS.items() if not attack.minimal]
GRADIENT = [name for name, attack in ATTACKS.items() if not getattr(attack, "answers_only", False)]
MINIMAL = [name for name, attack in ATTACKS.items() if attack.minimal]
EVERY_NORM = [(name, norm) for name, attack in ATTACKS.items() for norm in attack.norms]


def options(name: str, wanted: dict) -> dict:
    """Those of `wanted` that the attack knows."""
    known = inspect.signature(ATTACKS[name]).parameters
    return {key: value for key, value in wanted.items() if key in known}


def call(name: str, model, images: Tensor, labels: Tensor, **wanted) -> Tensor:
    """The attack, short, with those of `wanted` that it knows (minimal ones know no eps)."""
    few = {"steps": 3} if name == "lbfgs" else {}  # each of them several passes, for one image at a time
    return ATTACKS[name](model, images, labels, **options(name, {**QUICK, **few, "eps": 8 / 255, **wanted}))


def nearest(name: str, model, images: Tensor, labels: Tensor, **wanted) -> Tensor:
    """A minimal attack at its defaults, or at those of SHORT."""
    return ATTACKS[name](model, images, labels, **{**SHORT.get(name, {}), **wanted})


class Linear(nn.Module):
    """Flattened images times weights [K, n], in float64 where `exact`, so that batches round alike."""

    def __init__(self, weights: Tensor, bias: Tensor, exact: bool = False):
        super().__init__()
        self.weights, self.bias, self.exact = nn.Parameter(weights), nn.Parameter(bias), exact

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        if self.exact:
            return flat.double() @ self.weights.double().T + self.bias.double()
        return flat @ self.weights.T + self.bias


def problem(classes: int = 2, pixels: int = 49, count: int = 8, seed: int = 0, box: bool = False, spread=1.0):
    """A linear model, images and the labels it gives them; `box`: every other pixel is exactly 0 or 1."""
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(classes, pixels, generator=draw) * spread
    images = 0.3 + 0.4 * torch.rand(count, pixels, generator=draw)
    if box:
        images[:, ::2] = (images[:, ::2] > 0.5).float()
    images[:, 1] = 0.5  # a pixel that separates the classes by half as much as the others
    bias = -(weights @ images.mean(dim=0))
    model = Linear(weights, bias)
    with torch.no_grad():
        return model, images, model(images).argmax(dim=1)


def needed(model: Linear, images: Tensor, labels: Tensor, norm: str) -> Tensor:
    """The exact distance of each image to another class inside [0, 1], float64 [B]; inf where none is."""
    weights, bias = model.weights.detach().double(), model.bias.detach().double()
    images = images.flatten(1).double()
    logits = images @ weights.T + bias
    slope = weights[None] - weights[labels][:, None]  # [B, K, n], what each class gains on the label
    lack = (logits.gather(1, labels[:, None]) - logits)[:, :, None]
    size, room = slope.abs(), torch.where(slope > 0, 1 - images[:, None], images[:, None])
    if norm == "l1":  # the steepest pixels first, each to the box, the last one in part
        order = size.argsort(dim=2, descending=True)
        size, room = size.gather(2, order), room.gather(2, order)
        before = (size * room).cumsum(dim=2) - size * room
        length = (((lack - before) / size.clamp(min=1e-30)).clamp(min=0).minimum(room)).sum(dim=2)
    else:  # bisection over how far each pixel wants to go
        pull = size if norm == "l2" else torch.ones_like(size)
        low, high = torch.zeros_like(lack), torch.full_like(lack, 1e6)
        for _ in range(90):
            middle = (low + high) / 2
            enough = (size * (middle * pull).minimum(room)).sum(dim=2, keepdim=True) >= lack
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        move = (high * pull).minimum(room)
        length = move.norm(dim=2) if norm == "l2" else move.amax(dim=2)
    out_of_reach = (size * room).sum(dim=2) < lack[:, :, 0]
    length = length.masked_fill(out_of_reach, torch.inf)
    return length.scatter(1, labels[:, None], torch.inf).amin(dim=1)
