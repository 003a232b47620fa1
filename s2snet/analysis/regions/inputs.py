"""Compute the inputs of the tables of study=regions: images, maps, attacks, and masks from training images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.regions import measures
from s2snet.analysis.regions.measures import Masks
from s2snet.attacks import Noise, apgd
from s2snet.data.image_files import first_readable

IMPORTANCES = ("gradient_x_input", "integrated_gradients", "occlusion")
FACTOR = 2.0  # eps=null: this many times the median of the smallest perturbations, which fools most images


@dataclass(frozen=True)
class Inputs:
    """Of n test images; maps are [n, H, W], smoothed."""

    classifier: nn.Module
    test: Sample
    attacked: dict[str, Tensor]  # by minimal attack: its images
    fooled: Tensor  # bool [n]: correctly classified, and fooled by each of them
    importance: dict[str, Tensor]
    agnostic: Tensor
    oracle: Tensor
    eps: float  # L2 radius of the attacks on defences
    gray_box: Tensor  # images crafted against the classifier alone, in that radius
    masks: Masks


def compute(
    bench: Bench,
    classifier: nn.Module,
    *,
    images: int,
    train_images: int,
    importance: str,
    path_steps: int,
    patch: int,
    attacks: list[str],
    sigma: float,
    starts: int,
    start_eps: float,
    fill: str,
    width: float,
    eps: float | None,
    steps: int,
) -> Inputs:
    """Return everything that the tables need, from the bench's parts. ValueError if no image is fooled."""
    test, train = bench.images(images), _spread(bench, train_images)
    colour = train.images.mean(dim=(0, 2, 3))[:, None, None]
    finding = {"sigma": sigma, "starts": starts, "eps": start_eps, "seed": bench.seed}
    same = {"classifier": classifier, "seed": bench.seed}
    maps_of = {"path_steps": path_steps, "patch": patch, "colour": colour}

    attacked = bench.tensors(
        "smallest",
        lambda: measures.smallest_attacks(classifier, *test, attacks, bench.seed),
        images=test.images, labels=test.labels, attacks=attacks, **same,
    )  # fmt: skip
    importances = bench.tensors(
        "importance",
        lambda: measures.importance_maps(classifier, test.images, list(IMPORTANCES), **maps_of),
        images=test.images, **maps_of, **same,
    )  # fmt: skip
    finder = measures.per_input(classifier, colour, test.images.shape[-1], **finding)
    agnostic = bench.tensors(
        "agnostic",
        lambda: {
            name: measures.own_maps(finder, x)["attack"]
            for name, x in (("test", test.images), ("train", train.images))
        },
        images=test.images, train=train.images, finder=finder,
    )  # fmt: skip
    train_importance = bench.tensors(
        "train_importance",
        lambda: measures.importance_maps(classifier, train.images, [importance], **maps_of),
        images=train.images, importance=importance, **maps_of, **same,
    )[importance]  # fmt: skip
    predicted = batched.logits(classifier, train.images).argmax(dim=1)
    masks = Masks(
        classifier, measures.smooth(train_importance, sigma), agnostic["train"], predicted, colour,
        fill, width, finding,
    )  # fmt: skip
    nearest = torch.stack([(adversarial - test.images).flatten(1).norm(dim=1) for adversarial in attacked.values()])
    fooled = batched.right(classifier, test.images, test.labels) & (nearest > 0).all(dim=0)
    if not fooled.any():
        raise ValueError("study=regions: no correctly classified image was fooled; is the classifier trained?")
    eps = eps or float(f"{FACTOR * nearest.amin(dim=0)[fooled].median().item():.3g}")
    gray_box = bench.tensors(
        "gray_box",
        lambda: {
            "images": apgd(classifier, test.images, test.labels, eps=eps, norm="l2", steps=steps,
                           random_start=False, noise=Noise(bench.seed, test.index))
        },
        images=test.images, labels=test.labels, eps=eps, steps=steps, **same,
    )["images"]  # fmt: skip
    return Inputs(
        classifier,
        test,
        attacked,
        fooled,
        {name: measures.smooth(maps, sigma) for name, maps in importances.items()},
        agnostic["test"],
        measures.smooth(measures.oracle_map(test.images, attacked), sigma),
        eps,
        gray_box,
        masks,
    )


def _spread(bench: Bench, count: int) -> Sample:
    """Return training images, evenly spread over the split: some data sets are ordered by class."""
    source = bench.splits.train
    places = torch.linspace(0, len(source) - 1, min(count, len(source))).round().int().tolist()
    items = [first_readable(source.__getitem__, place, len(source))[:3] for place in places]
    images, labels, index = zip(*items, strict=True)
    return Sample(torch.stack(images).to(bench.device), torch.tensor(labels).to(bench.device), torch.tensor(index))
