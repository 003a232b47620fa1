"""Writes docs/audit.md from the docstrings of the checks.

    python scripts/audit_docs.py

A check's docstring begins with what it holds to be so, goes on with why and from where on it warns and fails, and ends
with the remedy. A test holds that the file is what this makes.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from s2snet.audit import checks

PATH = Path(__file__).parents[1] / "docs" / "audit.md"
INTRODUCTION = """\
# The audit: can a number be believed?

Most defences that were ever broken had been reported as robust by an evaluation that was wrong: gradients that were
zero, attacks that never arrived, labels out of step. An audit asks for these faults one by one. It speaks of the
*number*, and of the defence only so far:

- **PASS** does not mean robust. It means that no check found a reason to doubt the number, be it 60 % or 0 %.
- **WARN(n)**: n checks saw something that belongs beside the number when it is told.
- **FAIL(n)**: n checks saw something that makes numbers wrong, as a rule too high. Do what the remedies say and
  measure again.
- **OFF**: nobody looked.

`python evaluate.py` audits what it evaluates. `audit=quick` (the default) probes gradients, randomness and state on
a few images; `audit=full` also attacks with more steps, restarts and radii; `audit=off` does nothing and says so.
The verdict stands beside each defence on the terminal, in the column `audit` of `table.csv` and in `report.html`;
`audit.json` has every finding and `audit.html` shows them. With `strict=true` a FAIL is the exit status.
`python -m s2snet.audit results/NAME` audits again from the files alone.

Each check below says what it holds to be so, why that matters and from where on it warns and fails, and what to do.
This page is made from the checks' docstrings by `python scripts/audit_docs.py`.
"""


def markdown() -> str:
    """docs/audit.md: the introduction, the checks by module in the order of CHECKS, the sources."""
    parts = [INTRODUCTION]
    for module, found in groupby(checks.CHECKS.values(), key=lambda check: check.__module__):
        title, _, about = _paragraphs(sys.modules[module].__doc__)[0].rstrip(".").partition(": ")
        parts.append(f"## {title}\n\n{about[:1].upper()}{about[1:]}.\n" if about else f"## {title}\n")
        parts.extend(_section(check) for check in found)
    sources = next(text for text in _paragraphs(checks.__doc__) if text.startswith("Sources of the checks: "))
    parts.append(f"## Sources\n\n{sources.partition(': ')[2]}\n")
    return "\n".join(parts)


def _section(check: Callable[..., Iterator]) -> str:
    name = check.__name__
    claim, *why, _ = _paragraphs(check.__doc__)
    return "\n\n".join([f"### `{name}`", f"**{claim}**", *why, f"*Remedy:* {checks.remedy(name)}"]) + "\n"


def _paragraphs(docstring: str) -> list[str]:
    """A docstring's paragraphs, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in docstring.strip().split("\n\n")]


if __name__ == "__main__":
    PATH.write_text(markdown(), encoding="utf-8")
    print(PATH)
