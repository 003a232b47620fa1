"""Measures of input gradients, image by image: what study=gradients is made of. No models, no files.

The paper (arXiv 1803.07994) says that a gradient behind an S2SNet loses its class-dependent signal and points at
low-level structure. How it measured that is not known to us: every definition here is ours.

Gradients are [n, C, H, W]. An image whose gradient is all zeros has no direction: it takes no part in a mean of
directions, and its own measures are NaN.
"""

import numpy as np
import torch
from scipy import ndimage, stats
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

STRENGTHS = np.logspace(-2, 4, 13)  # of the probe's ridge penalty, on standardised features


def directions(gradients: Tensor) -> Tensor:
    """Unit vectors [n, C * H * W], float64; a gradient of zeros stays zeros."""
    flat = gradients.flatten(1).double()
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def resamples(n: int, count: int, seed: int) -> Tensor:
    """How often each of n images counts in each of `count` bootstrap samples, float64 [count, n]."""
    draws = np.random.default_rng(seed).integers(0, n, (count, n))
    return torch.from_numpy(np.stack([np.bincount(draw, minlength=n) for draw in draws])).double()


def class_gap(gradients: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Mean cosine between images of one class minus that between images of two classes, [R].

    `counts` [R, n] says how often each image counts: ones for the value itself, `resamples` for its interval. Images
    are what is drawn anew and not pairs, which share images; the pair of an image with itself never counts. NaN where
    no pair of one of the kinds is left. Cost: four products [R, n] x [n, n].
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
    """The gradients averaged to `side` x `side` (left as they are where smaller), each of unit norm, [n, d]."""
    small = [min(side, length) for length in gradients.shape[2:]]
    return directions(functional.adaptive_avg_pool2d(gradients, small)).cpu().numpy()


def probe(found: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Bool [n]: whether a linear probe, trained on the other folds, names the image's label.

    Ridge regression on the classes over standardised features, its penalty chosen inside the training folds.
    """
    enough(labels, folds)
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=STRENGTHS))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return cross_val_predict(model, found, labels, cv=split) == labels


def enough(labels: np.ndarray, folds: int) -> None:
    """ValueError where a class has fewer images than there are folds."""
    fewest = np.bincount(labels)[np.unique(labels)].min()
    if fewest < folds:
        raise ValueError(f"folds={folds}: a class has {fewest} images; at least one for each fold, or fewer folds")


def shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels in another order: what a probe finds in them is chance."""
    return np.random.default_rng(seed).permutation(labels)


def agreement(first: Tensor, second: Tensor) -> np.ndarray:
    """The cosine of each pair of gradients, [n]."""
    a, b = directions(first), directions(second)
    cosine = (a * b).sum(dim=1)
    cosine[~((a != 0).any(dim=1) & (b != 0).any(dim=1))] = torch.nan
    return cosine.cpu().numpy()


def frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The frequency of each place of a Fourier transform in cycles per pixel, and its bin: its nearest multiple of
    1 / (shorter side)."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return radius, np.rint(radius * min(height, width)).astype(int)


def spectrum(gradients: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Radial power spectrum [n, bins], each image's shares with sum 1, and its mean frequency [n] in cycles per pixel.

    Bin k is at k / (shorter side) cycles per pixel; the last ones are the corners beyond one half.
    """
    radius, bins = frequencies(*gradients.shape[2:])
    power = (torch.fft.fft2(gradients.double()).abs() ** 2).sum(dim=1).cpu().numpy()
    total = power.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        shares = power.reshape(len(power), -1) / total[:, None]
    radial = np.stack([np.bincount(bins.ravel(), image, bins.max() + 1) for image in shares])
    return radial, shares @ radius.ravel()


def edges(images: Tensor) -> np.ndarray:
    """The size of the Sobel gradient of each image's channel mean, [n, H, W]."""
    grey = images.mean(dim=1).double().cpu().numpy()
    return np.hypot(ndimage.sobel(grey, axis=1, mode="nearest"), ndimage.sobel(grey, axis=2, mode="nearest"))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each pair of maps, [n]; NaN where one is constant. Ties share their mean rank."""
    ranks = [stats.rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def magnitude(gradients: Tensor) -> np.ndarray:
    """|g| summed over channels, [n, H, W]."""
    return gradients.abs().sum(dim=1).double().cpu().numpy()


def sizes(gradients: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Each gradient's L2 norm, and the share of its entries that are exactly zero, [n] both."""
    flat = gradients.flatten(1)
    return flat.double().norm(dim=1).cpu().numpy(), (flat == 0).double().mean(dim=1).cpu().numpy()


def strangers(labels: Tensor, seed: int) -> Tensor:
    """For each image another one, drawn from those with another label; int64 [n]. ValueError where all have one."""
    labels = labels.cpu().numpy()
    if len(np.unique(labels)) < 2:
        raise ValueError("the images are all of one class; take more images")
    random = np.random.default_rng(seed)
    return torch.tensor([random.choice(np.flatnonzero(labels != label)) for label in labels])
