"""A claim, and the rules by which intervals decide it: it holds, it fails, or it is undecided. Imports no torch."""

from dataclasses import dataclass

from s2snet.analysis.intervals import Estimate

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


@dataclass(frozen=True)
class Claim:
    """A sentence that can be wrong, and the evidence for or against it."""

    name: str
    says: str  # the sentence
    source: str  # a paper with its section, or "ours" for a definition or a control of this project
    found: str  # the numbers, with their intervals and n
    verdict: str  # holds, fails, undecided
    because: str = ""  # if it contradicts a paper: what is known to differ from the paper's experiment

    def __post_init__(self) -> None:
        if self.verdict not in (HOLDS, FAILS, UNDECIDED):
            raise ValueError(f"claim {self.name}: verdict {self.verdict!r}")


def above(estimate: Estimate, limit: float = 0.0) -> str:
    """Return HOLDS if the whole interval is above the limit, FAILS if none of it is; UNDECIDED for NaN."""
    return HOLDS if estimate.low > limit else FAILS if estimate.high <= limit else UNDECIDED


def below(estimate: Estimate, limit: float = 0.0) -> str:
    """Return HOLDS if the whole interval is below the limit, FAILS if none of it is; UNDECIDED for NaN."""
    return HOLDS if estimate.high < limit else FAILS if estimate.low >= limit else UNDECIDED


def inside(estimate: Estimate, low: float, high: float) -> str:
    """Return HOLDS if the whole interval is within [low, high], FAILS if none of it is."""
    if low <= estimate.low and estimate.high <= high:
        return HOLDS
    return FAILS if estimate.high < low or estimate.low > high else UNDECIDED


def exceeds(larger: Estimate, smaller: Estimate) -> str:
    """Return HOLDS if the first interval is above the second, FAILS if it is below it. For unpaired observations."""
    return HOLDS if larger.low > smaller.high else FAILS if larger.high < smaller.low else UNDECIDED


def all_of(*verdicts: str) -> str:
    """Return FAILS if one fails, HOLDS if all hold, else UNDECIDED."""
    return FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else UNDECIDED


def decide(holds: bool, fails: bool) -> str:
    """Return the verdict of a rule that states both when a claim holds and when it fails."""
    return HOLDS if holds else FAILS if fails else UNDECIDED
