"""Maps of importance and of attack, the parts that they divide an image into, masks, and the purifiers that use them.

Maps are [n, H, W], one per image, with higher values for pixels that count more; masks are bool [n, H, W].
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from s2snet.analysis import batched
from s2snet.attacks import ATTACKS, Noise
from s2snet.attacks.losses import margin
from s2snet.models import build, freeze, regions

PARTS = ("B", "I", "V", "N")  # critical to both; to the classifier; to the attack; to neither
MODES = ("static", "per_class", "per_input")  # of masks: one for all images, one per predicted class, one per image
CONTROLS = ("random", "shifted")  # of the area of V: pixels anywhere; V moved round the image
BATCH = 64  # images in a forward and backward pass


def gradient_x_input(classifier: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return |gradient x input| of the classes' logits, summed over channels. One forward and backward each."""
    maps = []
    for part, of in zip(images.split(BATCH), classes.split(BATCH), strict=True):
        x = part.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            maps.append(regions.gradient_x_input(classifier, x, of).detach())
    return torch.cat(maps)[:, 0]


def integrated_gradients(classifier: nn.Module, images: Tensor, classes: Tensor, path_steps: int) -> Tensor:
    """Return signed attributions [n, C, H, W] of the classes' logits, from black (Sundararajan et al., 1703.01365).

    By the midpoint rule, their sum tends to logit(image) - logit(black). `path_steps` forwards and backwards each.
    """
    total = torch.zeros_like(images)
    for rows in torch.arange(len(images), device=images.device).split(BATCH):
        for step in range(path_steps):
            x = ((step + 0.5) / path_steps * images[rows]).detach().requires_grad_(True)
            with torch.enable_grad():
                logit = classifier(x).gather(1, classes[rows, None]).sum()
                (slope,) = torch.autograd.grad(logit, x)
            total[rows] += slope / path_steps
    return total * images


@torch.no_grad()
def occlusion(classifier: nn.Module, images: Tensor, classes: Tensor, patch: int, colour: Tensor) -> Tensor:
    """Return how much the class's logit falls if a patch is `colour` [C, 1, 1]: each pixel's mean over its patches.

    Patches have `patch` x `patch` pixels and half a patch between them (Zeiler and Fergus, arXiv 1311.2901, section
    4.2). For a linear classifier, patch 1 and black, it is the pixel's term. About (2 side / patch)^2 forwards each.
    """
    logit = batched.logits(classifier, images).gather(1, classes[:, None])
    height, width = images.shape[2:]
    drops, cover = images.new_zeros(len(images), height, width), images.new_zeros(height, width)
    for top in _starts(height, patch):
        for left in _starts(width, patch):
            place = (slice(top, top + patch), slice(left, left + patch))
            hidden = images.clone()
            hidden[:, :, *place] = colour
            drops[:, *place] += (logit - batched.logits(classifier, hidden).gather(1, classes[:, None]))[:, :, None]
            cover[place] += 1
    return drops / cover


def _starts(side: int, patch: int) -> list[int]:
    """Return the first pixels of the patches, half a patch from each other, the last patch at the rim."""
    last = max(0, side - patch)
    return sorted({*range(0, last, max(1, patch // 2)), last})


def importance_maps(
    classifier: nn.Module, images: Tensor, names: list[str], path_steps: int, patch: int, colour: Tensor
) -> dict[str, Tensor]:
    """Return the named maps of importance of the predicted class; a fall and a rise of its logit count alike."""
    classes = batched.logits(classifier, images).argmax(dim=1)
    known: dict[str, Callable[[], Tensor]] = {
        "gradient_x_input": lambda: gradient_x_input(classifier, images, classes),
        "integrated_gradients": lambda: integrated_gradients(classifier, images, classes, path_steps).abs().sum(dim=1),
        "occlusion": lambda: occlusion(classifier, images, classes, patch, colour).abs(),
    }
    return {name: known[name]() for name in names}


def smallest_attacks(
    classifier: nn.Module, images: Tensor, labels: Tensor, index: Tensor, attacks: list[str], seed: int
) -> dict[str, Tensor]:
    """Return each named attack's nearest fooling images in L2, like images; the clean one if it found none."""
    noise = Noise(seed, index)
    return {name: ATTACKS[name](classifier, images, labels, norm="l2", noise=noise) for name in attacks}


def oracle_map(images: Tensor, attacked: dict[str, Tensor]) -> Tensor:
    """Return the mean over attacks of |adversarial - image|, summed over channels. A defence cannot know it."""
    moved = [(adversarial - images).abs().sum(dim=1) for adversarial in attacked.values()]
    return torch.stack(moved).mean(dim=0)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Return the maps [n, H, W] after a Gaussian blur of `sigma` pixels."""
    return regions.smooth(maps[:, None], sigma)[:, 0]


def partition(importance: Tensor, attack: Tensor, q: float) -> dict[str, Tensor]:
    """Return the four disjoint parts that cover each image: both regions are its `q` highest pixels, up to ties."""
    looked, attacked = regions.top(importance, q), regions.top(attack, q)
    return {"B": looked & attacked, "I": looked & ~attacked, "V": attacked & ~looked, "N": ~looked & ~attacked}


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of masks [n, H, W]: [n]; 0 if both are empty."""
    both, either = (first & second).flatten(1).sum(dim=1), (first | second).flatten(1).sum(dim=1)
    return both / either.clamp(min=1)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's correlation of each pair of maps over their pixels: [n]; 0 if one is constant."""
    pairs = zip(first.flatten(1).double().cpu().numpy(), second.flatten(1).double().cpu().numpy(), strict=True)
    correlations = [
        0.0 if a.min() == a.max() or b.min() == b.max() else stats.spearmanr(a, b).statistic for a, b in pairs
    ]
    return torch.tensor(correlations, dtype=torch.float64)


def similarity(first: Tensor, second: Tensor, shares: list[float], draws: int = 5) -> dict[str, Tensor]:
    """Return how similar two maps of each image are, [n] each: `rank` (Spearman), and per share the IoU of top pixels.

    Keys with `random ` before the share are controls with random masks of equal area. Those with `others ` compare with
    other images' maps, a control for maps that are the same for all images. Both are means over `draws`; the other
    images are the next ones in order.
    """
    turns = range(1, min(draws, len(first) - 1) + 1) if len(first) > 1 else [0]
    values = {"rank": rank_correlation(first, second), "others rank": rank_correlation(first, second.roll(1, 0))}
    for q in shares:
        one, other = regions.top(first, q), regions.top(second, q)
        values[str(q)] = iou(one, other)
        values[f"random {q}"] = _mean(iou(one, random_like(other, seed)) for seed in range(draws))
        values[f"others {q}"] = _mean(iou(one, other.roll(by, 0)) for by in turns)
    return values


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0)


def energy(delta: Tensor, mask: Tensor) -> Tensor:
    """Return the share [n] of each perturbation's squared L2 length [n, C, H, W] inside its mask; 0 for none."""
    squares = delta.double().square().sum(dim=1)
    return (squares * mask).flatten(1).sum(dim=1) / squares.flatten(1).sum(dim=1).clamp(min=1e-300)


def random_like(masks: Tensor, seed: int) -> Tensor:
    """Return a mask of as many random pixels as each of these: the control of equal area."""
    score = torch.rand(masks.shape, generator=torch.Generator().manual_seed(seed))
    place = score.flatten(1).argsort(dim=1).argsort(dim=1).view(masks.shape).to(masks.device)
    return place < masks.flatten(1).sum(dim=1)[:, None, None]


def shifted_like(masks: Tensor, seed: int) -> Tensor:
    """Return each mask moved round the image by a random distance: the control of equal area and shape."""
    draw = torch.Generator().manual_seed(seed)
    by = [[int(torch.randint(side, (1,), generator=draw)) for side in masks.shape[1:]] for _ in masks]
    return torch.stack([mask.roll(shift, (0, 1)) for mask, shift in zip(masks, by, strict=True)])


def class_means(maps: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return the mean of the maps' ranks over images of each class [count, H, W], over all if a class has none."""
    ranked = regions.ranks(maps)
    weights = functional.one_hot(classes, count).to(ranked)
    sums = torch.einsum("nk,nhw->khw", weights, ranked)
    sizes = weights.sum(dim=0)[:, None, None]
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), ranked.mean(dim=0))


@dataclass
class Masks:
    """The masks and purifiers that follow from training images: maps [m, H, W], predicted classes, and options.

    `options` are those of the purifiers that find the mask in each image; `colour` [C, 1, 1] is the data's mean.
    """

    classifier: nn.Module
    importance: Tensor
    attack: Tensor
    predicted: Tensor
    colour: Tensor
    fill: str
    width: float
    options: dict[str, Any]  # sigma, starts, eps, seed

    @property
    def classes(self) -> int:
        return self.classifier.config["classes"]

    @property
    def shape(self) -> dict[str, int]:
        return {"channels": len(self.colour), "size": self.importance.shape[-1]}

    @cached_property
    def means(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The importance and attack map for all images [1, H, W] and per class [K, H, W], as mean ranks."""
        one_class = torch.zeros_like(self.predicted)
        return {
            "static": (class_means(self.importance, one_class, 1), class_means(self.attack, one_class, 1)),
            "per_class": tuple(
                class_means(maps, self.predicted, self.classes) for maps in (self.importance, self.attack)
            ),
        }

    def shared(self, mode: str, part: str, q: float, seed: int = 0) -> Tensor:
        """Return Bool [1, H, W] or [K, H, W]: a part of the partition, or a control of the area of V."""
        parts = partition(*self.means[mode], q)
        return parts[part] if part in PARTS else control(part, parts["V"], seed)

    def holes(self, mode: str, part: str, q: float, images: Tensor, maps: tuple[Tensor, Tensor], seed: int) -> Tensor:
        """Return Bool [n, H, W]: what is removed from these images, whose own `maps` are importance and attack."""
        if mode == "per_input":
            parts = partition(*maps, q)
            return parts[part] if part in PARTS else control(part, parts["V"], seed)
        masks = self.shared(mode, part, q, seed)
        if mode == "static":
            return masks.expand(len(images), -1, -1)
        return masks[batched.logits(self.classifier, images).argmax(dim=1)]

    def static(self, masks: Tensor, fill: str | None = None) -> nn.Module:
        """Return the purifier that removes these masks: [1, H, W] for all images, [K, H, W] by the predicted class."""
        by_class = {"classes": len(masks), "classifier": self.classifier.config} if len(masks) > 1 else {}
        purifier = build("neutralised", **self.shape, fill=fill or self.fill, width=self.width, **by_class)
        purifier.masks.copy_(masks[:, None])
        return _with_tensors(purifier, self.classifier, self.colour)

    def per_input(self, q: float) -> nn.Module:
        """Return the purifier that finds V in each image it receives."""
        options = {"q_importance": q, "q_attack": q, "fill": self.fill, "width": self.width, **self.options}
        return per_input(self.classifier, self.colour, self.shape["size"], **options)


def per_input(classifier: nn.Module, colour: Tensor, size: int, **options: Any) -> nn.Module:
    """Return the purifier that computes a mask per image with its own copy of this classifier."""
    purifier = build("neutralised_per_input", classifier=classifier.config, channels=len(colour), size=size, **options)
    return _with_tensors(purifier, classifier, colour)


def _with_tensors(purifier: nn.Module, classifier: nn.Module, colour: Tensor) -> nn.Module:
    purifier.mean.copy_(colour)
    if purifier.classifier is not None:
        purifier.classifier.load_state_dict(classifier.state_dict())
    return freeze(purifier).to(colour.device)


def control(name: str, masks: Tensor, seed: int) -> Tensor:
    """Return control masks of the same areas as these; `name` is one of CONTROLS."""
    return {"random": random_like, "shifted": shifted_like}[name](masks, seed)


@torch.no_grad()
def own_maps(purifier: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the importance and the attack map [n, H, W] that a purifier with a mask per image computes."""
    parts = [purifier.maps(part) for part in images.split(BATCH)]
    return {name: torch.cat([maps[k] for maps in parts])[:, 0] for k, name in enumerate(("importance", "attack"))}


@torch.no_grad()
def margins_without(
    purifier: nn.Module, classifier: nn.Module, images: Tensor, labels: Tensor, holes: Tensor
) -> Tensor:
    """Return the label's logit minus the best other [n], of images whose holes [n, H, W] the purifier fills."""
    filled = [
        purifier.filled(part, hole[:, None].to(part))[0]
        for part, hole in zip(images.split(BATCH), holes.split(BATCH), strict=True)
    ]
    return -margin(batched.logits(classifier, torch.cat(filled)), labels)
