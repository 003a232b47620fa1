"""The networks of the study by name, each trained once through the bench."""

from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from torch import Tensor

from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.linearity.nets import RBF, Maxout, Net, Softmax, Tanh
from s2snet.analysis.linearity.training import Recipe, Trained, fit


def zoo(
    bench: Bench,
    plain: Recipe,
    alphas: list[float],
    l1: float,
    members: int,
    units: int,
    pieces: int,
    init: float,
) -> dict[str, Trained]:
    """The trained networks. `plain` is the clean recipe that all others differ from in what their name says.

    softmax, rbf, tanh; maxout, and maxout nets as `adversarial` (alpha of `plain`), `alpha ALPHA`, `signs` and
    `uniform` (noise), `l1`, `sigmoid` (top), `member N` (other seeds). Each takes epochs x images; adversarial ones
    thrice as long.
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
        def made() -> Trained:
            torch.manual_seed(recipe.seed)  # members differ in their weights too; the bench keeps the random state
            return Trained(build(), recipe.epochs)

        return bench.trained(name, made, lambda new: fit(new, *parts, recipe), recipe=asdict(recipe), images=facts)

    return {name: trained(name, build, recipe) for name, (build, recipe) in recipes.items()}


def class_means(sample: Sample, classes: int) -> Tensor:
    """The mean image of each class [K, C, H, W]. ValueError where a class has no image."""
    counts = torch.bincount(sample.labels, minlength=classes)
    if counts.min() == 0:
        raise ValueError(f"study=linearity: class {int(counts.argmin())} has no training image")
    sums = torch.zeros(classes, *sample.images.shape[1:], device=sample.images.device)
    return sums.index_add_(0, sample.labels, sample.images) / counts.view(-1, 1, 1, 1)
