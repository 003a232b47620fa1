"""The networks of Goodfellow, Shlens and Szegedy (arXiv 1412.6572): maxout, softmax regression, RBF, a tanh control.

Each takes images [B, C, H, W] in [0, 1] and returns scores [B, K]; its `head` turns them into probabilities.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

COLUMN = 1.9365  # largest norm of a unit's incoming weights (maxout paper's reference configuration)


class Head(NamedTuple):
    """Turns scores into `probabilities` (scores [B, K] -> [B, K]) and a `cost` per image (scores, labels -> [B])."""

    probabilities: Callable[[Tensor], Tensor]
    cost: Callable[[Tensor, Tensor], Tensor]


def _softmax_cost(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores, labels, reduction="none")


def _sigmoid_cost(scores: Tensor, labels: Tensor) -> Tensor:
    target = functional.one_hot(labels, scores.shape[1]).to(scores.dtype)
    return functional.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(dim=1)


def _exponential_cost(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the cost of K independent binary decisions; the probability of a class is exp(score), score <= 0."""
    target = functional.one_hot(labels, scores.shape[1]).bool()
    absent = torch.log(-torch.expm1(scores.clamp(max=-1e-6)))  # log(1 - p), finite if an image is a centre
    return -torch.where(target, scores, absent).sum(dim=1)


HEADS = {
    "softmax": Head(lambda scores: scores.softmax(dim=1), _softmax_cost),
    "sigmoid": Head(torch.sigmoid, _sigmoid_cost),
    "exponential": Head(torch.exp, _exponential_cost),
}


class Net(nn.Module):
    """A network with a head by name, and a bound on its weights that training enforces after each step."""

    head = "softmax"
    optimiser = "sgd"

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of each class [B, K]; they add up to 1 only under softmax."""
        return HEADS[self.head].probabilities(self(images))

    def cost(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return each image's own training cost [B]."""
        return HEADS[self.head].cost(self(images), labels)

    def bound(self) -> None:
        """Enforce the bound; there is none by default."""


class Softmax(Net):
    """Softmax regression: one linear layer of `size` inputs (C x H x W), initialised with zeros."""

    def __init__(self, size: int, classes: int):
        super().__init__()
        self.layer = nn.Linear(size, classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class Maxout(Net):
    """Two hidden layers of `units`, each the largest of `pieces` linear functions, with dropout (arXiv 1302.4389).

    Dropout, the bound on columns and the initial weights in U(-init, init), `init` 0.005, are those of the maxout
    paper's MNIST configuration; the adversarial paper states none. `head` is softmax, or sigmoid for a binary decision
    per class.
    """

    def __init__(
        self,
        size: int,
        classes: int,
        units: int = 240,
        pieces: int = 5,
        init: float = 0.005,
        dropout: tuple[float, float] = (0.2, 0.5),
        head: str = "softmax",
    ):
        super().__init__()
        self.head, self.pieces, self.init = head, pieces, init
        self.drop_input, self.drop_hidden = nn.Dropout(dropout[0]), nn.Dropout(dropout[1])
        self.first = nn.Linear(size, units * pieces)
        self.second = nn.Linear(units, units * pieces)
        self.top = nn.Linear(units, classes)
        for layer in (self.first, self.second, self.top):
            nn.init.uniform_(layer.weight, -init, init)
            nn.init.zeros_(layer.bias)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}, init={self.init}, head={self.head}"

    def forward(self, images: Tensor) -> Tensor:
        hidden = self._largest(self.first(self.drop_input(images.flatten(1))))
        hidden = self._largest(self.second(self.drop_hidden(hidden)))
        return self.top(self.drop_hidden(hidden))

    @torch.no_grad()
    def bound(self) -> None:
        """Shorten the incoming weights of every linear piece to norm COLUMN."""
        for layer in (self.first, self.second, self.top):
            norm = layer.weight.norm(dim=1, keepdim=True)
            layer.weight.mul_((COLUMN / norm).clamp(max=1))

    def _largest(self, values: Tensor) -> Tensor:
        return values.unflatten(1, (self.pieces, -1)).amax(dim=1)


class Tanh(Net):
    """The control for piecewise linearity: as deep and wide as the maxout net, its units tanh, which saturate."""

    def __init__(self, size: int, classes: int, units: int = 240):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(size, units),
            nn.Tanh(),
            nn.Linear(units, units),
            nn.Tanh(),
            nn.Linear(units, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class RBF(Net):
    """One unit per class: p(y | x) = exp((x - m)^T B (x - m)) with the class's own m and B; no softmax over classes.

    The score is log p, at most 0. B is diagonal and negative, -r^2, so that p is a probability: the paper states
    neither its shape nor its sign.
    """

    head, optimiser = "exponential", "adam"

    def __init__(self, centres: Tensor, width: float = 0.1):
        """`centres` [K, ...] and `width`, each r, are the initial values, for example the class means."""
        super().__init__()
        self.centres = nn.Parameter(centres.flatten(1).clone())
        self.widths = nn.Parameter(torch.full_like(self.centres, width))

    def extra_repr(self) -> str:
        return f"{tuple(self.centres.shape)}"

    def forward(self, images: Tensor) -> Tensor:
        return -((images.flatten(1)[:, None] - self.centres) * self.widths).square().sum(dim=2)
