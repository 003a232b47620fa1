"""Verdicts follow from the interval, and one that lies on both sides decides nothing."""

import pytest

from s2snet.analysis.claim import FAILS, HOLDS, UNDECIDED, above, all_of, below, decide, exceeds, inside
from s2snet.analysis.intervals import Estimate


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
    assert [exceeds(*pair) for pair in ((high, low), (low, high), (wide, low))] == [HOLDS, FAILS, UNDECIDED]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.45, 0.55, HOLDS), (0.4, 0.6, HOLDS), (0.3, 0.5, UNDECIDED), (0.61, 0.7, FAILS), (0.1, 0.39, FAILS)],
)
def test_one_interval_and_a_range(low, high, verdict):
    assert inside(Estimate((low + high) / 2, low, high, 9), 0.4, 0.6) == verdict


def test_a_rule_that_states_both():
    assert [decide(*given) for given in ((True, False), (False, True), (False, False))] == [HOLDS, FAILS, UNDECIDED]


def test_several_verdicts():
    assert all_of(HOLDS, HOLDS) == HOLDS
    assert all_of(HOLDS, UNDECIDED) == UNDECIDED
    assert all_of(HOLDS, UNDECIDED, FAILS) == FAILS
