"""Verdicts are read off the interval, and one that lies on both sides decides nothing."""

import pytest

from s2snet.analysis.bench import FAILS, HOLDS, UNDECIDED
from s2snet.analysis.intervals import Estimate
from s2snet.analysis.rules import above, all_of, apart, below


@pytest.mark.parametrize(
    ("low", "high", "over", "under"),
    [
        (1.1, 1.3, HOLDS, FAILS),
        (0.7, 0.9, FAILS, HOLDS),
        (0.9, 1.1, UNDECIDED, UNDECIDED),
        (1, 1.2, UNDECIDED, FAILS),
        (0.8, 1, FAILS, UNDECIDED),
        (1, 1, FAILS, FAILS),
        (float("nan"), float("nan"), UNDECIDED, UNDECIDED),
    ],
)
def test_one_interval_and_a_limit(low, high, over, under):
    estimate = Estimate((low + high) / 2, low, high, 9)
    assert (above(estimate, 1), below(estimate, 1)) == (over, under)


def test_two_intervals():
    low, high, wide = (Estimate(v, v - d, v + d, 9) for v, d in ((1.0, 0.1), (2.0, 0.1), (1.6, 0.5)))
    assert [apart(*pair) for pair in ((high, low), (low, high), (wide, low))] == [HOLDS, FAILS, UNDECIDED]


def test_several_verdicts():
    assert all_of(HOLDS, HOLDS) == HOLDS
    assert all_of(HOLDS, UNDECIDED) == UNDECIDED
    assert all_of(HOLDS, UNDECIDED, FAILS) == FAILS
