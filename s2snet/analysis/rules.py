"""How an interval decides a claim: holds, fails, or undecided where it lies on both sides. NaN decides nothing."""

from s2snet.analysis.bench import FAILS, HOLDS, UNDECIDED
from s2snet.analysis.intervals import Estimate


def above(estimate: Estimate, limit: float = 0.0) -> str:
    """Holds where the whole interval is above the limit, fails where none of it is."""
    return HOLDS if estimate.low > limit else FAILS if estimate.high <= limit else UNDECIDED


def below(estimate: Estimate, limit: float = 0.0) -> str:
    """Holds where the whole interval is below the limit, fails where none of it is."""
    return HOLDS if estimate.high < limit else FAILS if estimate.low >= limit else UNDECIDED


def apart(larger: Estimate, smaller: Estimate) -> str:
    """Holds where the first interval is above the second, fails where it is below. For unpaired observations."""
    return HOLDS if larger.low > smaller.high else FAILS if larger.high < smaller.low else UNDECIDED


def all_of(*verdicts: str) -> str:
    """Fails where one fails, holds where all hold."""
    return FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else UNDECIDED
