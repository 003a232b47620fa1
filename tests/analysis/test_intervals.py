"""Estimates: the coverage of their intervals, and their texts."""

import numpy as np
import pytest

from s2snet.analysis import intervals


def test_a_mean_is_covered_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = [
        found.low <= 3 <= found.high for found in (intervals.mean(random.normal(3, 1, 60), seed) for seed in range(200))
    ]
    assert 0.89 <= np.mean(inside) <= 0.985  # 95 %, and its own deviation over 200 draws is 1.5 points


def test_texts():
    assert intervals.share(41, 100).percent().startswith("41.0 % (31.9 to 50.8, n = 100)")
    assert intervals.Estimate(0.12345, 0.1, 0.15, 7).text() == "0.123 (0.100 to 0.150, n = 7)"


def test_spearman_knows_monotone_and_constant():
    assert intervals.spearman(range(20), np.exp(np.arange(20))).value == pytest.approx(1)
    assert intervals.spearman(range(20), -np.arange(20)).high == pytest.approx(-1)
    assert np.isnan(intervals.spearman(range(20), np.zeros(20)).value)


def test_no_observations_are_refused():
    with pytest.raises(ValueError, match="no observations"):
        intervals.mean([])
