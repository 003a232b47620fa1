"""Maps of importance and of attack, the parts that they divide an image into, and the masks that serve as controls.

Maps are [n, H, W], of an image each, higher where a pixel counts more; masks are bool [n, H, W].
"""

from collections.abc import Callable, Iterable

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from s2snet.analysis import batched
from s2snet.attacks import ATTACKS, Noise
from s2snet.models import regions

PARTS = ("B", "I", "V", "N")  # critical to both; to the classifier; to the attack; to neither
BATCH = 64  # images whose gradient is held at once


def gradient_x_input(classifier: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """|gradient x input| of the classes' logits, summed over channels. One forward and backward each."""
    found = []
    for part, wanted in zip(images.split(BATCH), classes.split(BATCH), strict=True):
        x = part.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            found.append(regions.gradient_x_input(classifier, x, wanted).detach())
    return torch.cat(found)[:, 0]


def integrated_gradients(classifier: nn.Module, images: Tensor, classes: Tensor, path_steps: int) -> Tensor:
    """Signed attributions [n, C, H, W] of the classes' logits, from black (Sundararajan et al., arXiv 1703.01365).

    By the midpoint rule: their sum tends to logit(image) - logit(black). `path_steps` forwards and backwards each.
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
    """How much the class's logit falls where a patch is `colour` [C, 1, 1]: each pixel's mean over patches on it.

    Patches of `patch` x `patch` pixels, half a patch apart (Zeiler and Fergus, arXiv 1311.2901, section 4.2). With
    patch 1 and black it is, for a linear classifier, the pixel's term. About (2 side / patch)^2 forwards each.
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
    """Where patches begin: half a patch apart, the last at the rim."""
    last = max(0, side - patch)
    return sorted({*range(0, last, max(1, patch // 2)), last})


def importance_maps(
    classifier: nn.Module, images: Tensor, names: list[str], path_steps: int, patch: int, colour: Tensor
) -> dict[str, Tensor]:
    """The named maps of importance of the class that the classifier predicts; a fall and a rise count alike."""
    classes = batched.logits(classifier, images).argmax(dim=1)
    known: dict[str, Callable[[], Tensor]] = {
        "gradient_x_input": lambda: gradient_x_input(classifier, images, classes),
        "integrated_gradients": lambda: integrated_gradients(classifier, images, classes, path_steps).abs().sum(dim=1),
        "occlusion": lambda: occlusion(classifier, images, classes, patch, colour).abs(),
    }
    return {name: known[name]() for name in names}


def smallest(
    classifier: nn.Module, images: Tensor, labels: Tensor, index: Tensor, attacks: list[str], seed: int
) -> dict[str, Tensor]:
    """Each named attack's nearest fooling images in L2, like images; the clean one where it found none."""
    noise = Noise(seed, index)
    return {name: ATTACKS[name](classifier, images, labels, norm="l2", noise=noise) for name in attacks}


def oracle_map(images: Tensor, attacked: dict[str, Tensor]) -> Tensor:
    """The mean over attacks of |adversarial - image|, summed over channels. It knows the attack: for study only."""
    moved = [(adversarial - images).abs().sum(dim=1) for adversarial in attacked.values()]
    return torch.stack(moved).mean(dim=0)


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    return regions.smooth(maps[:, None], sigma)[:, 0]


def partition(importance: Tensor, attack: Tensor, q: float) -> dict[str, Tensor]:
    """The four parts of each image: both regions are its `q` highest pixels, up to ties. They cover it, disjointly."""
    looked, attacked = regions.top(importance, q), regions.top(attack, q)
    return {"B": looked & attacked, "I": looked & ~attacked, "V": attacked & ~looked, "N": ~looked & ~attacked}


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of masks [n, H, W]: [n]; 0 where both are empty."""
    both, either = (first & second).flatten(1).sum(dim=1), (first | second).flatten(1).sum(dim=1)
    return both / either.clamp(min=1)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of each pair of maps over their pixels: [n]; 0 where one is flat."""
    pairs = zip(first.flatten(1).double().cpu().numpy(), second.flatten(1).double().cpu().numpy(), strict=True)
    found = [0.0 if a.min() == a.max() or b.min() == b.max() else stats.spearmanr(a, b).statistic for a, b in pairs]
    return torch.tensor(found, dtype=torch.float64)


def likeness(first: Tensor, second: Tensor, shares: list[float], draws: int = 5) -> dict[str, Tensor]:
    """How alike two maps of each image are, [n] each: `rank` (Spearman), and by share the overlap of their top pixels.

    With `random ` before the share: with masks of equal area, anywhere. With `others `: with other images' maps, the
    control for maps that are alike everywhere. Both are means over `draws`, other images being those next in order.
    """
    turns = range(1, min(draws, len(first) - 1) + 1) if len(first) > 1 else [0]
    found = {"rank": rank_correlation(first, second), "others rank": rank_correlation(first, second.roll(1, 0))}
    for q in shares:
        one, other = regions.top(first, q), regions.top(second, q)
        found[str(q)] = iou(one, other)
        found[f"random {q}"] = _mean(iou(one, random_like(other, seed)) for seed in range(draws))
        found[f"others {q}"] = _mean(iou(one, other.roll(by, 0)) for by in turns)
    return found


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0)


def energy(delta: Tensor, mask: Tensor) -> Tensor:
    """The share [n] of each perturbation's squared L2 length [n, C, H, W] inside its mask; 0 for no perturbation."""
    squares = delta.double().square().sum(dim=1)
    return (squares * mask).flatten(1).sum(dim=1) / squares.flatten(1).sum(dim=1).clamp(min=1e-300)


def random_like(masks: Tensor, seed: int) -> Tensor:
    """A mask of as many pixels as each of these, anywhere: the control of equal area."""
    score = torch.rand(masks.shape, generator=torch.Generator().manual_seed(seed))
    place = score.flatten(1).argsort(dim=1).argsort(dim=1).view(masks.shape).to(masks.device)
    return place < masks.flatten(1).sum(dim=1)[:, None, None]


def shifted_like(masks: Tensor, seed: int) -> Tensor:
    """Each mask moved round the image by a random distance: the control of equal area and shape."""
    draw = torch.Generator().manual_seed(seed)
    by = [[int(torch.randint(side, (1,), generator=draw)) for side in masks.shape[1:]] for _ in masks]
    return torch.stack([mask.roll(shift, (0, 1)) for mask, shift in zip(masks, by, strict=True)])


def class_means(maps: Tensor, classes: Tensor, count: int) -> Tensor:
    """The mean of the maps' ranks over images of each class [count, H, W]; over all for a class without images."""
    ranked = regions.ranks(maps)
    weights = functional.one_hot(classes, count).to(ranked)
    sums = torch.einsum("nk,nhw->khw", weights, ranked)
    having = weights.sum(dim=0)[:, None, None]
    return torch.where(having > 0, sums / having.clamp(min=1), ranked.mean(dim=0))
