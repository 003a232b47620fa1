"""How the study's networks are trained: SGD as in the maxout paper's configuration, clean, adversarial or on noise.

Not the stages of `python train.py`: those attack within [0, 1] and stop by other rules, and this study compares with a
paper that does neither.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s2snet.analysis.bench import Sample
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.steps import errors, sign_step

KINDS = ("clean", "adversarial", "signs", "uniform")
CURVE = ("train", "validation", "adversarial_validation", "test", "adversarial_test")
WATCHED = 2000  # images of a split that the curve is measured on, at most
DECAY = 1.000004  # of the learning rate, per step


@dataclass(frozen=True)
class Recipe:
    """One way of training. `kind` is clean, adversarial (alpha clean + (1 - alpha) attacked), or on noisy images:
    `signs` adds eps or -eps to each pixel, `uniform` U(-eps, eps). `monitor` is the column of CURVE that chooses the
    epoch whose weights are kept. `l1` weighs the sum of the first layer's absolute weights.
    """

    kind: str = "clean"
    epochs: int = 10
    eps: float = 0.25  # of training, and of the curve's attack
    alpha: float = 0.5
    l1: float = 0.0
    monitor: str = "validation"
    lr: float = 0.1
    batch: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"training on {self.kind}: allowed are {', '.join(KINDS)}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: a share, 0 to 1")
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: at least 1")


class Trained(nn.Module):
    """A net with its errors after each epoch, so that both are kept as one: curve [epochs, len(CURVE)], shares."""

    def __init__(self, net: Net, epochs: int):
        super().__init__()
        self.net = net
        self.register_buffer("curve", torch.zeros(epochs, len(CURVE)))


def fit(trained: Trained, train: Sample, validation: Sample, test: Sample, recipe: Recipe) -> None:
    """Trains in place; the net ends in eval mode with the weights of the (first) epoch of least `monitor`.

    SGD with momentum 0.5, rising to 0.7 by epoch 250, and a learning rate that decays by DECAY a step; an RBF net takes
    Adam at lr / 100. The test images are watched and choose nothing. Random: order, dropout, noise, from recipe.seed.
    """
    net, best, kept = trained.net, float("inf"), {}
    optimiser = _optimiser(net, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for epoch in range(recipe.epochs):
            _epoch(net, train, recipe, optimiser, momentum=0.5 + 0.2 * min(epoch / 250, 1))
            trained.curve[epoch] = torch.tensor(watch(net, train, validation, test, recipe.eps))
            now = trained.curve[epoch, CURVE.index(recipe.monitor)].item()
            if now < best:
                best, kept = now, {key: value.clone() for key, value in net.state_dict().items()}
    net.load_state_dict(kept)
    net.eval()


def loss(net: Net, images: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """The training loss of one batch. Attacked images are made in eval mode against the current weights; no gradient
    passes through their making. Costs one forward and backward, three of each where adversarial."""
    if recipe.kind == "adversarial":
        net.eval()
        attacked = sign_step(net, images, labels, recipe.eps)
        net.train()
        clean, hard = (net.cost(each, labels).mean() for each in (images, attacked))
        value = recipe.alpha * clean + (1 - recipe.alpha) * hard
    else:
        value = net.cost(images + noise(images, recipe), labels).mean()
    if recipe.l1:
        value = value + recipe.l1 * next(net.parameters()).abs().sum()
    return value


def noise(images: Tensor, recipe: Recipe) -> Tensor | float:
    """What a noise control adds to the images; 0 for clean training."""
    if recipe.kind == "signs":
        return recipe.eps * (2 * torch.randint_like(images, 2) - 1)
    if recipe.kind == "uniform":
        return recipe.eps * (2 * torch.rand_like(images) - 1)
    return 0.0


def watch(net: Net, train: Sample, validation: Sample, test: Sample, eps: float) -> list[float]:
    """A line of the curve: the shares of wrong images, in the order of CURVE, in eval mode."""
    net.eval()
    line = [_wrong(net, train.images, train.labels)]
    for part in (validation, test):
        images, labels = part.images[:WATCHED], part.labels[:WATCHED]
        line += [_wrong(net, images, labels), _wrong(net, sign_step(net, images, labels, eps), labels)]
    return line


def _wrong(net: Net, images: Tensor, labels: Tensor) -> float:
    return errors(net, images[:WATCHED], labels[:WATCHED]).double().mean().item()


def _optimiser(net: Net, recipe: Recipe) -> torch.optim.Optimizer:
    if net.optimiser == "adam":
        return torch.optim.Adam(net.parameters(), lr=recipe.lr / 100)
    return torch.optim.SGD(net.parameters(), lr=recipe.lr, momentum=0.5)


def _epoch(net: Net, train: Sample, recipe: Recipe, optimiser: torch.optim.Optimizer, momentum: float) -> None:
    net.train()
    for group in optimiser.param_groups:
        if "momentum" in group:
            group["momentum"] = momentum
    for places in torch.randperm(len(train.labels)).split(recipe.batch):
        places = places.to(train.labels.device)
        optimiser.zero_grad()
        loss(net, train.images[places], train.labels[places], recipe).backward()
        optimiser.step()
        net.bound()
        for group in optimiser.param_groups:
            group["lr"] /= DECAY
