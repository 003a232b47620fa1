"""Train the study's networks: SGD as in the maxout paper's configuration, clean, adversarial or on noise.

These are not the stages of `python train.py`: those attack within [0, 1] and stop by other rules, and this study
compares with a paper that does neither.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.linearity.measures import errors, sign_step
from s2snet.analysis.linearity.nets import RBF, Maxout, Net, Softmax, Tanh

KINDS = ("clean", "adversarial", "signs", "uniform")
CURVE = ("train", "validation", "adversarial_validation", "test", "adversarial_test")
MONITORED = 2000  # images of a split that the curve is measured on, at most
DECAY = 1.000004  # of the learning rate, per step


@dataclass(frozen=True)
class Recipe:
    """The training of one network.

    `kind` is clean, adversarial (alpha clean + (1 - alpha) attacked), or on noisy images: `signs` adds eps or -eps to
    each pixel, `uniform` U(-eps, eps). `monitor` is the column of CURVE that selects the epoch whose weights are kept.
    `l1` is the weight of the sum of the first layer's absolute weights.
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
            raise ValueError(f"kind={self.kind}: allowed are {', '.join(KINDS)}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: a share, 0 to 1")
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: at least 1")


class Trained(nn.Module):
    """A net with its errors after each epoch, curve [epochs, len(CURVE)] in shares, saved as one module."""

    def __init__(self, net: Net, epochs: int):
        super().__init__()
        self.net = net
        self.register_buffer("curve", torch.zeros(epochs, len(CURVE)))


def fit(trained: Trained, train: Sample, validation: Sample, test: Sample, recipe: Recipe) -> None:
    """Train in place; the net ends in eval mode with the weights of the first epoch with the least `monitor`.

    SGD with momentum 0.5, rising to 0.7 by epoch 250, and a learning rate that decays by DECAY a step; an RBF net uses
    Adam at lr / 100. Errors on test images are recorded and select nothing. Order, dropout and noise are random, from
    recipe.seed.
    """
    net, best, kept = trained.net, float("inf"), {}
    optimiser = _optimiser(net, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for epoch in range(recipe.epochs):
            _epoch(net, train, recipe, optimiser, momentum=0.5 + 0.2 * min(epoch / 250, 1))
            trained.curve[epoch] = torch.tensor(curve_line(net, train, validation, test, recipe.eps))
            now = trained.curve[epoch, CURVE.index(recipe.monitor)].item()
            if now < best:
                best, kept = now, {key: value.clone() for key, value in net.state_dict().items()}
    net.load_state_dict(kept)
    net.eval()


def loss(net: Net, images: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Return the training loss of one batch.

    Attacked images are computed in eval mode against the current weights; no gradient passes through the attack. Cost:
    one forward and backward, three of each for adversarial training.
    """
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
    """Return the noise that is added to the images; 0 for clean training."""
    if recipe.kind == "signs":
        return recipe.eps * (2 * torch.randint_like(images, 2) - 1)
    if recipe.kind == "uniform":
        return recipe.eps * (2 * torch.rand_like(images) - 1)
    return 0.0


def curve_line(net: Net, train: Sample, validation: Sample, test: Sample, eps: float) -> list[float]:
    """Return a line of the curve: the shares of wrong images in eval mode, in the order of CURVE."""
    net.eval()
    line = [_wrong(net, train.images, train.labels)]
    for part in (validation, test):
        images, labels = part.images[:MONITORED], part.labels[:MONITORED]
        line += [_wrong(net, images, labels), _wrong(net, sign_step(net, images, labels, eps), labels)]
    return line


def _wrong(net: Net, images: Tensor, labels: Tensor) -> float:
    return errors(net, images[:MONITORED], labels[:MONITORED]).double().mean().item()


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


def train_all(
    bench: Bench,
    plain: Recipe,
    alphas: list[float],
    l1: float,
    members: int,
    units: int,
    pieces: int,
    init: float,
) -> dict[str, Trained]:
    """Return the trained networks by name, each trained once through the bench.

    `plain` is the clean recipe; the others differ from it as their names tell: softmax, rbf, tanh; maxout, and maxout
    nets as `adversarial` (alpha of `plain`), `alpha ALPHA`, `signs` and `uniform` (noise), `l1`, `sigmoid` (head),
    `member N` (other seeds). Each takes epochs x images; adversarial ones three times as long.
    """
    parts = [bench.images(split=split) for split in ("train", "validation", "test")]
    facts = [getattr(bench.splits, split).fingerprint() for split in ("train", "validation", "test")]
    size, classes = parts[0].images[0].numel(), len(bench.classes)
    hard = replace(plain, kind="adversarial", monitor="adversarial_validation")

    def maxout(head: str = "softmax") -> Net:
        return Maxout(size, classes, units, pieces, init, head=head)

    recipes: dict[str, tuple[Callable[[], Net], Recipe]] = {
        "softmax": (lambda: Softmax(size, classes), plain),
        "maxout": (maxout, plain),
        "adversarial": (maxout, hard),
        "rbf": (lambda: RBF(class_means(parts[0], classes)), plain),
        "tanh": (lambda: Tanh(size, classes, units), plain),
        "signs": (maxout, replace(plain, kind="signs")),
        "uniform": (maxout, replace(plain, kind="uniform")),
        "sigmoid": (lambda: maxout("sigmoid"), plain),
        "l1": (maxout, replace(plain, l1=l1)),
    }
    recipes |= {f"alpha {alpha:g}": (maxout, replace(hard, alpha=alpha)) for alpha in alphas}
    recipes |= {f"member {k}": (maxout, replace(plain, seed=plain.seed + k)) for k in range(1, members)}

    def trained(name: str, build: Callable[[], Net], recipe: Recipe) -> Trained:
        def untrained() -> Trained:
            torch.manual_seed(recipe.seed)  # members differ in their weights too; the bench restores the random state
            return Trained(build(), recipe.epochs)

        return bench.trained(name, untrained, lambda new: fit(new, *parts, recipe), recipe=asdict(recipe), images=facts)

    return {name: trained(name, build, recipe) for name, (build, recipe) in recipes.items()}


def class_means(sample: Sample, classes: int) -> Tensor:
    """Return the mean image of each class [K, C, H, W]. ValueError if a class has no image."""
    counts = torch.bincount(sample.labels, minlength=classes)
    if counts.min() == 0:
        raise ValueError(f"study=linearity: class {int(counts.argmin())} has no training image")
    sums = torch.zeros(classes, *sample.images.shape[1:], device=sample.images.device)
    return sums.index_add_(0, sample.labels, sample.images) / counts.view(-1, 1, 1, 1)
