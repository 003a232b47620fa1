"""Who reads whose signal: the cross matrix as a tournament. Whether it is an order, and whether another one agrees.

`correct` is Bool [signal, reader, n]: whether the reader f_j is right about image x as the S2SNet A_S,i of signal i
shows it. i beats j where f_i reads j's signal better than f_j reads i's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise

import numpy as np
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from s2snet.analysis.intervals import RESAMPLES

ENUMERATED = 6  # networks up to which all tournaments are looked at: 2 ** 15


def beats(accuracy: np.ndarray, relative: bool = False) -> np.ndarray:
    """Bool [..., K, K] from accuracies [..., signal, reader]: [i, j] is whether f_i reads A_S,j better than f_j A_S,i.

    `relative` takes from each reader what it has on its own signal, so that a good classifier does not win for that.
    """
    if relative:
        accuracy = accuracy - np.diagonal(accuracy, axis1=-2, axis2=-1)[..., None, :]
    return np.swapaxes(accuracy, -1, -2) > accuracy


def is_order(won: np.ndarray) -> np.ndarray:
    """Bool [...]: whether the tournament [..., K, K] is a total order: all numbers of wins differ, nobody is tied."""
    wins = np.sort(won.sum(axis=-1), axis=-1)
    return (wins == np.arange(won.shape[-1])).all(axis=-1)


def circular_triads(won: np.ndarray) -> float:
    """How many threes go in a circle (Kendall and Babington Smith 1940), from the wins; a tie is half a win each."""
    count = len(won)
    wins = won.sum(axis=1) + 0.5 * (~won & ~won.T & ~np.eye(count, dtype=bool)).sum(axis=1)
    return count * (count - 1) * (2 * count - 1) / 12 - float((wins**2).sum()) / 2


def consistence(won: np.ndarray) -> float:
    """Kendall's coefficient of consistence: 1 for a total order, 0 for as many circular triads as there can be."""
    count = len(won)
    most = (count**3 - count) / 24 if count % 2 else (count**3 - 4 * count) / 24
    return 1 - circular_triads(won) / most


@cache
def by_chance(count: int) -> dict[float, float]:
    """{circular triads: share of all tournaments of `count` with so many}, each equally likely.

    All of them are counted for up to ENUMERATED, 100,000 random ones above.
    """
    pairs = list(combinations(range(count), 2))
    if count <= ENUMERATED:
        outcomes = (np.arange(2 ** len(pairs))[:, None] >> np.arange(len(pairs))) & 1
    else:
        outcomes = np.random.default_rng(0).integers(0, 2, (100_000, len(pairs)))
    wins = np.zeros((len(outcomes), count))
    for place, (first, second) in enumerate(pairs):
        wins[:, first] += outcomes[:, place]
        wins[:, second] += 1 - outcomes[:, place]
    triads = count * (count - 1) * (2 * count - 1) / 12 - (wins**2).sum(axis=1) / 2
    values, counts = np.unique(triads, return_counts=True)
    return {float(value): int(number) / len(triads) for value, number in zip(values, counts, strict=True)}


def chance(won: np.ndarray) -> float:
    """The share of random tournaments that have no more circular triads than this one."""
    found = circular_triads(won)
    return sum(share for triads, share in by_chance(len(won)).items() if triads <= found)


def resampled(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """The mean over the last axis in RESAMPLES bootstrap draws of it: [RESAMPLES, ...] for values [..., n]."""
    n = values.shape[-1]
    weights = np.random.default_rng(seed).multinomial(n, [1 / n] * n, RESAMPLES) / n
    return (weights @ values.reshape(-1, n).T).reshape(RESAMPLES, *values.shape[:-1])


def along(won: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Per tournament [r, K, K] that is an order: 1 where values [r, K] fall along it, -1 where they rise, else 0."""
    order = np.argsort(-won.sum(axis=-1), axis=-1, kind="stable")
    steps = np.diff(np.take_along_axis(np.broadcast_to(values, order.shape), order, axis=-1), axis=-1)
    same = (steps < 0).all(axis=-1).astype(int) - (steps > 0).all(axis=-1)
    return np.where(is_order(won), same, 0)


@dataclass(frozen=True)
class Tournament:
    """Who beats whom, over all images and in bootstrap draws of them."""

    text: str  # `a > b > c`, from the one with most wins on, `=` between those with as many
    is_order: bool
    triads: float  # that go in a circle
    consistence: float
    chance: float  # the share of random tournaments with no more of them
    share: float  # of the resamples that are an order
    resamples: np.ndarray  # Bool [RESAMPLES, K, K]


def tournament(names: Sequence[str], correct: np.ndarray, relative: bool = False, seed: int = 0) -> Tournament:
    """The tournament of `correct` [signal, reader, n]."""
    won = beats(correct.mean(axis=-1), relative)
    drawn = beats(resampled(correct.astype(float), seed), relative)
    wins = won.sum(axis=1)
    ranked = [int(k) for k in np.argsort(-wins, kind="stable")]
    text = names[ranked[0]]
    for before, k in pairwise(ranked):
        text += f" {'>' if wins[before] > wins[k] else '='} {names[k]}"
    share = float(is_order(drawn).mean())
    return Tournament(text, bool(is_order(won)), circular_triads(won), consistence(won), chance(won), share, drawn)


def mutual_information(images: Tensor, shown: Tensor, bins: int = 32) -> np.ndarray:
    """The normalised mutual information between each image [n, C, H, W] and what is shown of it, float64 [n].

    Of the joint histogram of 8-bit pixels in `bins` equal bins, per channel, then the mean over channels; what is
    shown is clipped to [0, 1]. 1 for an image and itself. Few pixels in many bins raise it: compare equals with equals.
    """
    first, second = (
        ((x.clamp(0, 1) * 255).round().long() * bins // 256).flatten(2).cpu().numpy() for x in (images, shown)
    )
    return np.array(
        [
            np.mean([normalized_mutual_info_score(a, b) for a, b in zip(one, other, strict=True)])
            for one, other in zip(first, second, strict=True)
        ]
    )
