"""What a check says: a finding, with its evidence and what to do about it."""

from dataclasses import dataclass
from typing import NamedTuple

PASS, WARN, FAIL, NOT_APPLICABLE = "pass", "warn", "fail", "not applicable"
ORDER = (FAIL, WARN, PASS, NOT_APPLICABLE)  # worst first


class Answer(NamedTuple):
    """What a check yields: about one defence, or about the whole evaluation where `defence` is empty."""

    defence: str
    verdict: str  # one of ORDER
    evidence: str  # what was seen, with n
    part: str = ""  # what it points at: purifier, classifier, defence, attack, data


@dataclass(frozen=True)
class Finding:
    """An answer under its check's name, with the remedy that the check's docstring ends with."""

    check: str
    defence: str
    verdict: str
    evidence: str
    part: str
    remedy: str


def worst(findings: list[Finding]) -> str:
    """PASS, WARN(n) or FAIL(n): the worst verdict among findings and how many have it."""
    for verdict in (FAIL, WARN):
        count = sum(finding.verdict == verdict for finding in findings)
        if count:
            return f"{verdict.upper()}({count})"
    return PASS.upper()


def graded(value: float, warn: float, fail: float) -> str:
    """The verdict on a value of which more is worse: above `fail`, above `warn`, or neither."""
    return FAIL if value > fail else WARN if value > warn else PASS


def gravest(*verdicts: str) -> str:
    """The worst of several."""
    return min(verdicts, key=ORDER.index)
