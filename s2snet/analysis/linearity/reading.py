"""Reading the study's rows: the one that is meant, its number as an estimate, and what a rule comes to."""

from s2snet.analysis.bench import FAILS, HOLDS, UNDECIDED
from s2snet.analysis.intervals import Estimate

NEAR = 0.05  # a share within which errors count as the same


def find(rows: list[dict], judge: str, source: str, eps: float, clipped: bool) -> dict:
    """The row of `errors` on that net, of images made against `source`."""
    wanted = (judge, source, eps, clipped if eps else False)
    return next(row for row in rows if (row["net"], row["made_on"], row["eps"], row["clipped"]) == wanted)


def estimate(row: dict, of: str = "error") -> Estimate:
    """A row's `error`, `confidence` or `confidence_mistakes` with its interval."""
    ends = ("low", "high") if of == "error" else (f"{of}_low", f"{of}_high")
    count = row["n"] if of != "confidence_mistakes" else round(row["n"] * row["error"])
    return Estimate(row[of], row[ends[0]], row[ends[1]], count)


def decide(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNDECIDED
