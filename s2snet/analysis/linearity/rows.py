"""Look up rows of the table `errors` and read their estimates."""

from typing import Any

from s2snet.analysis.intervals import Estimate

Rows = list[dict[str, Any]]


def find(rows: Rows, judge: str, source: str, eps: float, clipped: bool) -> dict[str, Any]:
    """Return the row of `errors` for that net, on images crafted against `source`."""
    key = (judge, source, eps, clipped if eps else False)
    return next(row for row in rows if (row["net"], row["made_on"], row["eps"], row["clipped"]) == key)


def estimate(row: dict[str, Any], measure: str = "error") -> Estimate:
    """Return a row's `error`, `same`, `confidence` or `confidence_mistakes` with its interval."""
    low, high = ("low", "high") if measure in ("error", "same") else (f"{measure}_low", f"{measure}_high")
    count = row["n"] if measure != "confidence_mistakes" else round(row["n"] * row["error"])
    return Estimate(row[measure], row[low], row[high], count)
