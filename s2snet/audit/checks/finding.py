"""Findings: the verdict of one check on one defence, with its evidence and a remedy."""

from dataclasses import dataclass
from typing import NamedTuple

PASS, WARN, FAIL, NOT_APPLICABLE = "pass", "warn", "fail", "not applicable"
ORDER = (FAIL, WARN, PASS, NOT_APPLICABLE)  # worst first


class Answer(NamedTuple):
    """The verdict of a check on one defence, or on the whole evaluation if `defence` is empty."""

    defence: str
    verdict: str  # one of ORDER
    evidence: str  # the numbers behind the verdict, with n
    part: str = ""  # the likely cause: purifier, classifier, defence, attack or data


@dataclass(frozen=True)
class Finding:
    """An `Answer` together with the name of its check and the remedy from the check's docstring."""

    check: str
    defence: str
    verdict: str
    evidence: str
    part: str
    remedy: str


def summary(findings: list[Finding]) -> str:
    """Return PASS, WARN(n) or FAIL(n): the worst verdict among the findings and how many have it."""
    for verdict in (FAIL, WARN):
        count = sum(finding.verdict == verdict for finding in findings)
        if count:
            return f"{verdict.upper()}({count})"
    return PASS.upper()


def grade(value: float, warn: float, fail: float) -> str:
    """Return FAIL if `value` is above `fail`, WARN if it is above `warn`, else PASS."""
    return FAIL if value > fail else WARN if value > warn else PASS


def worst(*verdicts: str) -> str:
    """Return the worst of several verdicts."""
    return min(verdicts, key=ORDER.index)
