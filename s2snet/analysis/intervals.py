"""Numbers with their 95 % intervals, as studies state them: shares, means, medians, correlations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from s2snet.evaluation.scores import wilson

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its 95 % interval, and how many observations it is of."""

    value: float
    low: float
    high: float
    n: int

    def text(self, scale: float = 1.0, digits: int = 3, unit: str = "") -> str:
        """`0.12 (0.10 to 0.14, n = 360)`, with `digits` significant digits; `scale=100, unit=" %"` for shares."""
        parts = [f"{scale * number:#.{digits}g}".rstrip(".") for number in (self.value, self.low, self.high)]
        return f"{parts[0]}{unit} ({parts[1]} to {parts[2]}, n = {self.n})"

    def percent(self) -> str:
        """`41.4 % (36.4 to 46.6, n = 360)`."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.n})"

    def points(self) -> str:
        """Of a difference of shares: `-20.8 points (-25.6 to -16.4, n = 360)`."""
        return f"{100 * self.value:.1f} points ({100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.n})"


def share(successes: int, n: int) -> Estimate:
    """A share with its Wilson interval. ValueError for n = 0."""
    return Estimate(successes / n, *wilson(successes, n), n)


def bootstrap(values, statistic: Callable = np.mean, seed: int = 0) -> Estimate:
    """A statistic of observations with its percentile bootstrap interval over them. ValueError for none."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("no observations, no estimate")
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    resampled = [statistic(values[draw]) for draw in draws]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(statistic(values)), float(low), float(high), len(values))


def mean(values, seed: int = 0) -> Estimate:
    """The mean with its percentile bootstrap interval."""
    return bootstrap(values, np.mean, seed)


def median(values, seed: int = 0) -> Estimate:
    """The median with its percentile bootstrap interval."""
    return bootstrap(values, np.median, seed)


def spearman(first, second, seed: int = 0) -> Estimate:
    """Spearman's rank correlation of paired observations with its percentile bootstrap interval over the pairs.

    NaN where one side is constant.
    """
    pairs = np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)], axis=1)
    if np.ptp(pairs, axis=0).min() == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), len(pairs))

    def correlation(rows: np.ndarray) -> float:
        constant = np.ptp(rows, axis=0).min() == 0  # a resample may be
        return np.nan if constant else float(stats.spearmanr(rows[:, 0], rows[:, 1]).statistic)

    draws = np.random.default_rng(seed).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    low, high = np.nanquantile([correlation(pairs[draw]) for draw in draws], [0.025, 0.975])
    return Estimate(correlation(pairs), float(low), float(high), len(pairs))
