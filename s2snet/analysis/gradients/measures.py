"""Measures of input gradients, image by image, and of a SegNet's index maps.

The paper (arXiv 1803.07994) states that a gradient behind an S2SNet loses its class-dependent signal and points at
low-level structure. How that was measured is not known: every definition here is ours. Gradients are [n, C, H, W].
An image whose gradient is all zeros has no direction: it is left out of means of directions, and its measures are NaN.

Each 2x2 pooling of a SegNet keeps, besides its values, which of four positions each came from; unpooling by these
indices puts the values back there. Sizes and counts follow from the authors' release (arXiv 1803.07994, 1803.08337);
the exchanges of index maps are ours.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage, stats
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from s2snet.analysis.batched import BATCH
from s2snet.models import SegNet

STRENGTHS = np.logspace(-2, 4, 13)  # of the probe's ridge penalty, on standardised features
BITS = 32  # of a float in the bottleneck
EXCHANGES = ("own", "other", "random", "constant", "mean code")


def directions(gradients: Tensor) -> Tensor:
    """Return unit vectors [n, C * H * W], float64; a gradient of zeros stays zeros."""
    flat = gradients.flatten(1).double()
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def resamples(n: int, count: int, seed: int) -> Tensor:
    """Return how often each of n images occurs in each of `count` bootstrap samples, float64 [count, n].

    Measures that share these samples can be compared, and `class_gap` needs the counts: scipy.stats.bootstrap offers
    neither.
    """
    draws = np.random.default_rng(seed).integers(0, n, (count, n))
    return torch.from_numpy(np.stack([np.bincount(draw, minlength=n) for draw in draws])).double()


def class_gap(gradients: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the mean cosine between images of one class minus that between images of two classes, [R].

    `counts` [R, n] is how often each image occurs: ones for the value itself, `resamples` for its interval. Images are
    resampled, not pairs, which share images; the pair of an image with itself never counts. NaN if there is no pair of
    one of the kinds. Cost: four products [R, n] x [n, n].
    """
    unit = directions(gradients)
    cosine = unit @ unit.T
    present = (unit != 0).any(dim=1)
    alike = (labels[:, None] == labels[None]).double()
    pairs = (present[:, None] & present[None]).double().fill_diagonal_(0)
    counts = counts.to(unit)

    def mean(kind: Tensor) -> Tensor:
        total = ((counts @ (cosine * kind)) * counts).sum(dim=1)
        return total / ((counts @ kind) * counts).sum(dim=1)

    return mean(pairs * alike) - mean(pairs * (1 - alike))


def features(gradients: Tensor, side: int) -> np.ndarray:
    """Return the gradients averaged to at most `side` x `side` pixels, each of unit norm, [n, d]."""
    small = [min(side, length) for length in gradients.shape[2:]]
    return directions(functional.adaptive_avg_pool2d(gradients, small)).cpu().numpy()


def probe(features: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return Bool [n]: whether a linear probe, trained on the other folds, predicts the image's label.

    The probe is ridge regression on the classes over standardised features, with a penalty chosen inside the training
    folds.
    """
    check_folds(labels, folds)
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=STRENGTHS))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return cross_val_predict(model, features, labels, cv=split) == labels


def check_folds(labels: np.ndarray, folds: int) -> None:
    """ValueError if a class has fewer images than there are folds."""
    fewest = np.bincount(labels)[np.unique(labels)].min()
    if fewest < folds:
        raise ValueError(f"folds={folds}: a class has {fewest} images; use more images or fewer folds")


def shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the labels in random order: a probe predicts them by chance."""
    return np.random.default_rng(seed).permutation(labels)


def agreement(first: Tensor, second: Tensor) -> np.ndarray:
    """Return the cosine of each pair of gradients, [n]."""
    a, b = directions(first), directions(second)
    cosine = (a * b).sum(dim=1)
    cosine[~((a != 0).any(dim=1) & (b != 0).any(dim=1))] = torch.nan
    return cosine.cpu().numpy()


def frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequency of each entry of a Fourier transform in cycles per pixel, and its bin.

    Bin k is the frequencies nearest to k / (shorter side).
    """
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return radius, np.rint(radius * min(height, width)).astype(int)


def spectrum(gradients: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the radial power spectrum [n, bins], in shares that sum to 1, and the mean frequency [n].

    Bin k is at k / (shorter side) cycles per pixel; the last bins are the corners beyond one half.
    """
    radius, bins = frequencies(*gradients.shape[2:])
    power = (torch.fft.fft2(gradients.double()).abs() ** 2).sum(dim=1).cpu().numpy()
    total = power.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        shares = power.reshape(len(power), -1) / total[:, None]
    radial = np.stack([np.bincount(bins.ravel(), image, bins.max() + 1) for image in shares])
    return radial, shares @ radius.ravel()


def edges(images: Tensor) -> np.ndarray:
    """Return the size of the Sobel gradient of each image's channel mean, [n, H, W]."""
    gray = images.mean(dim=1).double().cpu().numpy()
    return np.hypot(ndimage.sobel(gray, axis=1, mode="nearest"), ndimage.sobel(gray, axis=2, mode="nearest"))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each pair of maps, [n]; NaN if one is constant. Ties have their mean rank."""
    ranks = [stats.rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def magnitude(gradients: Tensor) -> np.ndarray:
    """Return |gradient| summed over channels, [n, H, W]."""
    return gradients.abs().sum(dim=1).double().cpu().numpy()


def sizes(gradients: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return each gradient's L2 norm, and the share of its entries that are exactly zero, [n] both."""
    flat = gradients.flatten(1)
    return flat.double().norm(dim=1).cpu().numpy(), (flat == 0).double().mean(dim=1).cpu().numpy()


def draw_donors(labels: Tensor, seed: int) -> Tensor:
    """Return for each image one of another label, drawn at random; int64 [n]. ValueError if all have one label."""
    labels = labels.cpu().numpy()
    if len(np.unique(labels)) < 2:
        raise ValueError("the images are all of one class; take more images")
    random = np.random.default_rng(seed)
    return torch.tensor([random.choice(np.flatnonzero(labels != label)) for label in labels])


def capacity(size: tuple[int, int], widths: Sequence[int]) -> list[dict[str, int]]:
    """Return the size of each pooling of a SegNet with these widths, and the number of its index choices.

    One row per stage, from the image on; a choice is among four positions, so it has two bits.
    """
    rows = []
    height, width = size
    for stage, depth in enumerate(widths, start=1):
        height, width = height // 2, width // 2
        choices = depth * height * width
        rows.append({"stage": stage, "channels": depth, "height": height, "width": width, "choices": choices})
    return rows


def totals(size: tuple[int, int], channels: int, widths: Sequence[int]) -> dict[str, int]:
    """Return the bits of the 8-bit image, of the code as floats and of the index maps."""
    stages = capacity(size, widths)
    return {
        "image_bits": 8 * channels * size[0] * size[1],
        "code_values": stages[-1]["choices"],
        "code_bits": BITS * stages[-1]["choices"],
        "choices": sum(stage["choices"] for stage in stages),
        "index_bits": 2 * sum(stage["choices"] for stage in stages),
    }


def to_choices(indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the position of each flat index in its window: 0, 1 in the upper row, 2, 3 in the lower; like indices."""
    row, column = indices // size[1], indices % size[1]
    return 2 * (row % 2) + column % 2


def to_indices(choices: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the flat indices, into maps of `size`, of choices [..., h, w]; the inverse of `to_choices`."""
    rows = 2 * torch.arange(choices.shape[-2], device=choices.device)[:, None] + choices // 2
    columns = 2 * torch.arange(choices.shape[-1], device=choices.device) + choices % 2
    return rows * size[1] + columns


def count_choices(purifier: SegNet, images: Tensor, batch: int = BATCH) -> list[Tensor]:
    """Return how often each choice occurs over the images, int64 [4, C, h, w] per pooling. One encoding per image."""
    counts: list[Tensor] = []
    for part in images.split(batch):
        with torch.no_grad():
            code = purifier.encode(part)
        for stage, (indices, size) in enumerate(zip(code.indices, code.sizes, strict=True)):
            choices = to_choices(indices, size)
            count = torch.stack([(choices == choice).sum(dim=0) for choice in range(4)])
            if stage == len(counts):
                counts.append(count)
            else:
                counts[stage] += count
    return counts


def entropy(counts: Tensor) -> Tensor:
    """Return the entropy in bits of each choice from the counts of its four positions, [4, ...] -> [...].

    The plug-in entropy has Miller and Madow's correction for small n, (outcomes seen - 1) / (2 n ln 2), with which the
    estimate for a nearly uniform choice is above 2 about as often as below. Choices depend on each other, so their sum
    is an upper bound of what they carry together.
    """
    n, ln2 = counts.sum(dim=0), math.log(2)
    shares = counts.double() / n
    return (((counts > 0).sum(dim=0) - 1) / (2 * n) - torch.special.xlogy(shares, shares).sum(dim=0)) / ln2


def mean_code(purifier: SegNet, images: Tensor, batch: int = BATCH) -> Tensor:
    """Return the bottleneck averaged over the images, [1, C, h, w]."""
    with torch.no_grad():
        total = sum(purifier.encode(part).bottleneck.double().sum(dim=0) for part in images.split(batch))
    return (total / len(images)).float()[None]


def exchange_indices(
    purifier: SegNet, images: Tensor, donors: Tensor, kind: str, seed: int = 0, batch: int = BATCH
) -> Tensor:
    """Return the decoder's output for the code of `images` with other indices, like images; `kind` is in EXCHANGES.

    own: no exchange; other: those of `donors`, like images; random: each window's position drawn at random; constant:
    the first position of each; mean code: its own indices, with the bottleneck averaged over all images, so that only
    the indices differ from image to image. One or two encodings and one decoding each.
    """
    if kind not in EXCHANGES:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(EXCHANGES)}")
    generator = torch.Generator().manual_seed(seed)
    average = mean_code(purifier, images, batch) if kind == "mean code" else None
    outputs = []
    for part, donor in zip(images.split(batch), donors.split(batch), strict=True):
        with torch.no_grad():
            code = purifier.encode(part)
            if kind == "other":
                code = code._replace(indices=purifier.encode(donor).indices)
            elif kind in ("random", "constant"):
                choices = [
                    torch.randint(4, indices.shape, generator=generator).to(part.device)
                    if kind == "random"
                    else torch.zeros_like(indices)
                    for indices in code.indices
                ]
                indices = (to_indices(choice, size) for choice, size in zip(choices, code.sizes, strict=True))
                code = code._replace(indices=tuple(indices))
            elif average is not None:
                code = code._replace(bottleneck=average.expand_as(code.bottleneck))
            outputs.append(purifier.decode(code))
    return torch.cat(outputs)
