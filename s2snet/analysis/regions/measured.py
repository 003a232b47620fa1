"""What the study of regions computes everything from: images, maps, attacks, and what training images say."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.regions.maps import importance_maps, oracle_map, smallest, smoothed
from s2snet.analysis.regions.parts import Knowledge, own_maps, per_input
from s2snet.attacks import Noise, apgd
from s2snet.data.image_files import first_readable

IMPORTANCES = ("gradient_x_input", "integrated_gradients", "occlusion")
FACTOR = 2.0  # eps=null: so many times the median of the smallest perturbations, most images then fall


@dataclass(frozen=True)
class Measured:
    """Of n test images; maps are [n, H, W], smoothed."""

    classifier: nn.Module
    test: Sample
    attacked: dict[str, Tensor]  # by minimal attack: its images
    fooled: Tensor  # bool [n]: got right, and fooled by each of them
    importance: dict[str, Tensor]
    agnostic: Tensor
    oracle: Tensor
    eps: float  # L2 radius of the attacks on defences
    gray_box: Tensor  # images made on the classifier alone, in that radius
    knowledge: Knowledge


def measure(bench: Bench, classifier: nn.Module, options: SimpleNamespace) -> Measured:
    """All of it, from the bench's parts. ValueError where no image is fooled: then there is nothing to study."""
    test, train = bench.images(options.images), _spread(bench, options.train_images)
    colour = train.images.mean(dim=(0, 2, 3))[:, None, None]
    chosen = {"sigma": options.sigma, "starts": options.starts, "eps": options.start_eps, "seed": bench.seed}
    same = {"classifier": classifier, "seed": bench.seed}
    maps_of = {"path_steps": options.path_steps, "patch": options.patch, "colour": colour}

    attacked = bench.tensors(
        "smallest",
        lambda: smallest(classifier, *test, list(options.attacks), bench.seed),
        images=test.images, labels=test.labels, attacks=list(options.attacks), **same,
    )  # fmt: skip
    importance = bench.tensors(
        "importance",
        lambda: importance_maps(classifier, test.images, list(IMPORTANCES), **maps_of),
        images=test.images, **maps_of, **same,
    )  # fmt: skip
    finder = per_input(classifier, colour, test.images.shape[-1], **chosen)
    agnostic = bench.tensors(
        "agnostic",
        lambda: {name: own_maps(finder, x)["attack"] for name, x in (("test", test.images), ("train", train.images))},
        images=test.images, train=train.images, finder=finder,
    )  # fmt: skip
    looked = bench.tensors(
        "train_importance",
        lambda: importance_maps(classifier, train.images, [options.importance], **maps_of),
        images=train.images, importance=options.importance, **maps_of, **same,
    )[options.importance]  # fmt: skip
    predicted = batched.logits(classifier, train.images).argmax(dim=1)
    knowledge = Knowledge(
        classifier, smoothed(looked, options.sigma), agnostic["train"], predicted, colour,
        options.fill, options.width, chosen,
    )  # fmt: skip
    nearest = torch.stack([(adversarial - test.images).flatten(1).norm(dim=1) for adversarial in attacked.values()])
    fooled = batched.right(classifier, test.images, test.labels) & (nearest > 0).all(dim=0)
    if not fooled.any():
        raise ValueError("study=regions: no image that the classifier gets right was fooled; is it trained?")
    eps = options.eps or float(f"{FACTOR * nearest.amin(dim=0)[fooled].median().item():.3g}")
    gray_box = bench.tensors(
        "gray_box",
        lambda: {
            "images": apgd(classifier, test.images, test.labels, eps=eps, norm="l2", steps=options.steps,
                           random_start=False, noise=Noise(bench.seed, test.index))
        },
        images=test.images, labels=test.labels, eps=eps, steps=options.steps, **same,
    )["images"]  # fmt: skip
    return Measured(
        classifier,
        test,
        attacked,
        fooled,
        {name: smoothed(maps, options.sigma) for name, maps in importance.items()},
        agnostic["test"],
        smoothed(oracle_map(test.images, attacked), options.sigma),
        eps,
        gray_box,
        knowledge,
    )


def _spread(bench: Bench, count: int) -> Sample:
    """That many training images from all over the split: some data sets are ordered by class."""
    source = bench.splits.train
    places = torch.linspace(0, len(source) - 1, min(count, len(source))).round().int().tolist()
    items = [first_readable(source.__getitem__, place, len(source))[:3] for place in places]
    images, labels, index = zip(*items, strict=True)
    return Sample(torch.stack(images).to(bench.device), torch.tensor(labels).to(bench.device), torch.tensor(index))
