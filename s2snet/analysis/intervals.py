"""Values with their 95 % intervals: shares, means, medians, correlations. Imports no torch."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from s2snet.evaluation.scores import wilson

RESAMPLES = 2000
HELD = 4_000_000  # resampled observations in memory at once


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its 95 % interval, and the number of observations."""

    value: float
    low: float
    high: float
    n: int

    def text(self, scale: float = 1.0, digits: int = 3, unit: str = "") -> str:
        """Return `0.12 (0.10 to 0.14, n = 360)` with `digits` significant digits; for shares scale=100, unit=" %"."""
        parts = [f"{scale * number:#.{digits}g}".rstrip(".") for number in (self.value, self.low, self.high)]
        return f"{parts[0]}{unit} ({parts[1]} to {parts[2]}, n = {self.n})"

    def percent(self) -> str:
        """Return `41.4 % (36.4 to 46.6, n = 360)`."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.n})"

    def points(self) -> str:
        """Return `-20.8 points (-25.6 to -16.4, n = 360)`, for a difference of shares."""
        return f"{100 * self.value:.1f} points ({100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.n})"

    def columns(self, name: str = "value") -> dict[str, float]:
        """Return NAME, NAME_low and NAME_high, for a row."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def share(successes: int, n: int) -> Estimate:
    """Return a share with its Wilson interval. ValueError for n = 0."""
    return Estimate(successes / n, *wilson(successes, n), n)


def bootstrap(*samples: Sequence[float], statistic: Callable[..., np.ndarray] = np.mean, seed: int = 0) -> Estimate:
    """Return a statistic of one sample, or of several paired ones, with its percentile bootstrap interval.

    `statistic(*samples, axis=-1)` reduces the last axis, as NumPy's functions do; resamples in which it is NaN are left
    out. ValueError if there are no observations.
    """
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    count = len(arrays[0])
    if not count:
        raise ValueError("no observations, no estimate")
    value = float(statistic(*arrays, axis=-1))
    if count == 1:  # scipy needs two
        return Estimate(value, value, value, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of NaN among the resamples
        resampled = stats.bootstrap(
            arrays,
            statistic,
            n_resamples=RESAMPLES,
            batch=max(1, HELD // count),
            method="percentile",
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Estimate(value, float(low), float(high), count)


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the mean with its percentile bootstrap interval."""
    return bootstrap(values, seed=seed)


def median(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the median with its percentile bootstrap interval."""
    return bootstrap(values, statistic=np.median, seed=seed)


def per_image(values: Sequence[float]) -> Estimate:
    """Return the mean over images, with Wilson's interval if all values are 0 or 1, else with the bootstrap's."""
    values = np.asarray(values, dtype=np.float64)
    if ((values == 0) | (values == 1)).all():
        return share(int(values.sum()), len(values))
    return mean(values)


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean difference of paired observations with its percentile bootstrap interval."""
    return mean(np.asarray(first, np.float64) - np.asarray(second, np.float64))


def spearman(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Estimate:
    """Return Spearman's rank correlation of paired observations with its percentile bootstrap interval over the pairs.

    NaN if one side is constant.
    """
    if min(np.ptp(side) for side in (first, second)) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), len(first))
    return bootstrap(first, second, statistic=_rank_correlation, seed=seed)


def _rank_correlation(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    """Return Spearman's correlation along an axis; NaN if one side is constant, as a resample may be."""
    ranks = [stats.rankdata(side, axis=axis) for side in (first, second)]
    a, b = (rank - rank.mean(axis=axis, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=axis) / np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
