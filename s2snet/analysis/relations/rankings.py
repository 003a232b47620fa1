"""Rankings of classifiers with their uncertainty: leaders in a transfer matrix, orders in the cross matrix. No torch.

`fooled` is Bool [source, judge, n]: whether an example crafted against the source fools the judge, over images that all
judges classify correctly. `correct` is Bool [signal, reader, n]: whether the reader f_j is right about an image behind
the S2SNet A_S,i. i beats j if f_i reads j's signal better than f_j reads i's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise

import numpy as np

from s2snet.analysis.intervals import RESAMPLES, Estimate, bootstrap

OWN_BUDGET = "own budget"  # a leader's place: the budget that fools a classifier itself, or else a level
ENUMERATED = 6  # networks up to which all tournaments are counted: 2 ** 15


@dataclass(frozen=True)
class Leader:
    """The network that comes first, its value, and its lead over the second; paired bootstrap over the images."""

    name: str
    value: Estimate
    second: str
    lead: Estimate

    @property
    def clear(self) -> bool:
        """True if the 95 % interval of the lead is above 0, so that the first is distinguishable from the second."""
        return self.lead.low > 0


def leader(
    names: Sequence[str],
    scores: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    lowest: bool = False,
    seed: int = 0,
) -> Leader:
    """Return the network whose scores [networks, n] have the highest (or lowest) statistic, against the next one."""
    scores = np.asarray(scores, dtype=np.float64)
    sign = -1 if lowest else 1
    values = [statistic(row) for row in scores]
    first, second = sorted(range(len(names)), key=lambda k: -sign * values[k])[:2]

    def lead(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return sign * (statistic(one, axis=axis) - statistic(other, axis=axis))

    value = bootstrap(scores[first], statistic=statistic, seed=seed)
    return Leader(
        names[first], value, names[second], bootstrap(scores[first], scores[second], statistic=lead, seed=seed)
    )


def fooled_by_others(fooled: np.ndarray) -> np.ndarray:
    """Return [judge, n]: the share of the other classifiers' examples of each image that fool the judge (column j)."""
    others = ~np.eye(len(fooled), dtype=bool)
    return (fooled * others[:, :, None]).sum(axis=0) / (len(fooled) - 1)


def fooling_others(fooled: np.ndarray) -> np.ndarray:
    """Return [source, n]: the share of the other classifiers that the source's example of each image fools (row i)."""
    return fooled_by_others(fooled.swapaxes(0, 1))


def find_leaders(
    names: Sequence[str], fooled: Mapping[float, np.ndarray], smallest: np.ndarray | None, seed: int = 0
) -> dict[str, dict[str, Leader]]:
    """Return {"easiest" or "furthest": {place: leader}}: the leaders by column and by row mean at each level.

    If the `smallest` budgets [network, n] are given, their lowest median is one more place for the easiest to fool.
    """
    leaders: dict[str, dict[str, Leader]] = {"easiest": {}, "furthest": {}}
    for level, matrix in fooled.items():
        leaders["easiest"][f"{level:g}"] = leader(names, fooled_by_others(matrix), seed=seed)
        leaders["furthest"][f"{level:g}"] = leader(names, fooling_others(matrix), seed=seed)
    if smallest is not None:
        leaders["easiest"][OWN_BUDGET] = leader(names, smallest, np.median, lowest=True, seed=seed)
    return leaders


def beats(accuracy: np.ndarray, relative: bool = False) -> np.ndarray:
    """Return Bool [..., K, K] from accuracies [..., signal, reader]: whether f_i reads A_S,j better than f_j A_S,i.

    `relative` subtracts each reader's accuracy on its own signal, so that a classifier does not win for being accurate.
    """
    if relative:
        accuracy = accuracy - np.diagonal(accuracy, axis1=-2, axis2=-1)[..., None, :]
    return np.swapaxes(accuracy, -1, -2) > accuracy


def is_order(won: np.ndarray) -> np.ndarray:
    """Return Bool [...]: whether the tournament [..., K, K] is a total order: no ties, no equal numbers of wins."""
    wins = np.sort(won.sum(axis=-1), axis=-1)
    return (wins == np.arange(won.shape[-1])).all(axis=-1)


def circular_triads(won: np.ndarray) -> float:
    """Return the number of circular triads (Kendall and Babington Smith 1940); a tie is half a win for each."""
    count = len(won)
    wins = won.sum(axis=1) + 0.5 * (~won & ~won.T & ~np.eye(count, dtype=bool)).sum(axis=1)
    return count * (count - 1) * (2 * count - 1) / 12 - float((wins**2).sum()) / 2


def consistence(won: np.ndarray) -> float:
    """Return Kendall's coefficient of consistence: 1 for a total order, 0 for the largest number of circular triads."""
    count = len(won)
    most = (count**3 - count) / 24 if count % 2 else (count**3 - 4 * count) / 24
    return 1 - circular_triads(won) / most


@cache
def by_chance(count: int) -> dict[float, float]:
    """Return {circular triads: share of all tournaments of `count` with that number}, each equally likely.

    All tournaments are counted up to ENUMERATED, 100,000 random ones above.
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
    """Return the share of random tournaments that have no more circular triads than this one."""
    own = circular_triads(won)
    return sum(share for triads, share in by_chance(len(won)).items() if triads <= own)


def resampled(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the mean over the last axis in bootstrap samples of it: [RESAMPLES, ...] for values [..., n].

    Values of several networks share the samples, and whole orders are compared; scipy.stats.bootstrap offers neither.
    """
    n = values.shape[-1]
    weights = np.random.default_rng(seed).multinomial(n, [1 / n] * n, RESAMPLES) / n
    return (weights @ values.reshape(-1, n).T).reshape(RESAMPLES, *values.shape[:-1])


def along(won: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return [r]: 1 if values [r, K] fall along the order of a tournament [r, K, K], -1 if they rise, else 0.

    It is 0 too if the tournament is no order.
    """
    order = np.argsort(-won.sum(axis=-1), axis=-1, kind="stable")
    steps = np.diff(np.take_along_axis(np.broadcast_to(values, order.shape), order, axis=-1), axis=-1)
    same = (steps < 0).all(axis=-1).astype(int) - (steps > 0).all(axis=-1)
    return np.where(is_order(won), same, 0)


@dataclass(frozen=True)
class Tournament:
    """The wins of each network over each other one, over all images and in bootstrap samples of them."""

    text: str  # `a > b > c` from most to fewest wins, `=` for equal numbers
    is_order: bool
    triads: float  # circular ones
    consistence: float
    chance: float  # the share of random tournaments with no more of these
    share: float  # of the resamples that are an order
    resamples: np.ndarray  # Bool [RESAMPLES, K, K]


def tournament(names: Sequence[str], correct: np.ndarray, relative: bool = False, seed: int = 0) -> Tournament:
    """Return the tournament of `correct` [signal, reader, n]."""
    won = beats(correct.mean(axis=-1), relative)
    drawn = beats(resampled(correct.astype(float), seed), relative)
    wins = won.sum(axis=1)
    ranked = [int(k) for k in np.argsort(-wins, kind="stable")]
    text = names[ranked[0]]
    for before, k in pairwise(ranked):
        text += f" {'>' if wins[before] > wins[k] else '='} {names[k]}"
    share = float(is_order(drawn).mean())
    return Tournament(text, bool(is_order(won)), circular_triads(won), consistence(won), chance(won), share, drawn)
