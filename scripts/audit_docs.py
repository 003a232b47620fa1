"""Write docs/audit.md from the docstrings of the checks.

    python scripts/audit_docs.py

The docstring of a check begins with its claim, explains why it matters and when the check warns and fails, and ends
with the remedy. A test fails if the file is out of date.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from s2snet.audit import checks

PATH = Path(__file__).parents[1] / "docs" / "audit.md"
INTRODUCTION = """\
# The audit: can a number be believed?

Most defences that were later broken had been reported as robust by a faulty evaluation: zero gradients, attacks that
had not converged, labels in the wrong order. The audit tests for these faults one by one. Its verdict is about the
*number* and not about the defence:

- **PASS** does not mean robust. It means that no check found a reason to doubt the number, be it 60 % or 0 %.
- **WARN(n)**: n checks found something that should be reported together with the number.
- **FAIL(n)**: n checks found a fault that makes the number wrong, usually too high. Follow the remedies and measure
  again.
- **OFF**: the audit was off.

`python evaluate.py` audits every evaluation. `audit=quick` (the default) probes gradients, randomness and state on a
few images; `audit=full` also attacks with more steps, restarts and radii; `audit=off` skips the audit, and the table
shows OFF. The verdict on each defence is shown on the terminal, in the column `audit` of `table.csv` and in
`report.html`. All findings are in `audit.json`, and on one page in `audit.html`. With `strict=true`, the exit status is
1 if a check fails. `python -m s2snet.audit results/NAME` repeats an audit from the files alone.

Each check below states its claim, why it matters, when it warns and fails, and a remedy. This page is generated from
the docstrings of the checks by `python scripts/audit_docs.py`.
"""


def markdown() -> str:
    """Return docs/audit.md: the introduction, the checks by module in the order of CHECKS, the sources."""
    parts = [INTRODUCTION]
    for module, of_module in groupby(checks.CHECKS.values(), key=lambda check: check.__module__):
        title, _, about = _paragraphs(sys.modules[module].__doc__)[0].rstrip(".").partition(": ")
        parts.append(f"## {title}\n\n{about[:1].upper()}{about[1:]}.\n" if about else f"## {title}\n")
        parts.extend(_section(check) for check in of_module)
    sources = next(text for text in _paragraphs(checks.__doc__) if text.startswith("Sources of the checks: "))
    parts.append(f"## Sources\n\n{sources.partition(': ')[2]}\n")
    return "\n".join(parts)


def _section(check: Callable[..., Iterator]) -> str:
    name = check.__name__
    claim, *why, _ = _paragraphs(check.__doc__)
    return "\n\n".join([f"### `{name}`", f"**{claim}**", *why, f"*Remedy:* {checks.remedy(name)}"]) + "\n"


def _paragraphs(docstring: str) -> list[str]:
    """Return the paragraphs of a docstring, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in docstring.strip().split("\n\n")]


if __name__ == "__main__":
    PATH.write_text(markdown(), encoding="utf-8")
    print(PATH)
