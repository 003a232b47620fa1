"""The audit of a result folder, read from audit.json and arranged by check for the pages and the terminal.

Names, evidence and remedies come from the checks (s2snet/audit/checks); nothing is graded here.
"""

import json
from pathlib import Path
from typing import Any

from s2snet.report.verdict import joined

ORDER = ("fail", "warn", "pass", "not applicable")  # the verdicts of checks, worst first
CONSEQUENCES = {  # verdict: what it means for whose numbers, and how many checks gave it
    "fail": "Do not believe {whose} yet: {checks} failed.",
    "warn": "Read {whose} with care: {checks} gave a warning.",
}
NO_DOUBT = "No check found a reason to doubt these numbers."
OFF = "These numbers were not checked: the audit was off."


def read(folder: Path) -> dict[str, Any] | None:
    """Return the content of audit.json, None if the folder was never audited."""
    path = folder / "audit.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def arranged(audit: dict[str, Any], defences: list[dict]) -> dict[str, Any]:
    """Return the findings by check: those with `doubts`, that `passed`, that were `skipped`.

    A check with doubts failed or warned; a skipped one did not apply. Each has its name, claim, remedy, worst verdict,
    answers, and a verdict per defence for a table's columns (None if it gave none). `defences` have a name and a title;
    a finding on the whole evaluation counts in every column.
    """
    titles = {defence["name"]: defence["title"] for defence in defences} | {"": "the evaluation"}
    checks = []
    for name, claim in audit["checks"].items():
        findings = [finding for finding in audit["findings"] if finding["check"] == name]
        checks.append(
            {
                "name": name,
                "claim": claim,
                "remedy": findings[0]["remedy"] if findings else "",
                "verdict": _worst(findings),
                "columns": [_worst([f for f in findings if f["defence"] in (d["name"], "")]) for d in defences],
                "answers": [{**f, "title": titles.get(f["defence"], f["defence"])} for f in findings],
            }
        )
    by_verdict = {verdict: [check for check in checks if check["verdict"] == verdict] for verdict in (*ORDER, None)}
    return {
        "audit": audit["audit"],
        "off": not audit["findings"],
        "verdicts": audit["verdicts"],
        "consequence": consequence(audit, defences),
        "doubts": by_verdict["fail"] + by_verdict["warn"],
        "passed": by_verdict["pass"],
        "skipped": by_verdict[ORDER[-1]] + by_verdict[None],
    }


def consequence(audit: dict[str, Any], defences: list[dict]) -> str:
    """Return one sentence on what the worst verdicts mean, and for whose numbers."""
    if not audit["findings"]:
        return OFF
    for verdict, sentence in CONSEQUENCES.items():
        count = len({finding["check"] for finding in audit["findings"] if finding["verdict"] == verdict})
        if count:
            verdicts = audit["verdicts"]
            whose = [d["title"] for d in defences if verdicts.get(d["name"], "").startswith(verdict.upper())]
            return sentence.format(
                whose="these numbers" if len(whose) == len(verdicts) else f"the numbers of {joined(whose)}",
                checks="one check" if count == 1 else f"{count} checks",
            )
    return NO_DOUBT


def _worst(findings: list[dict]) -> str | None:
    return min((finding["verdict"] for finding in findings), key=ORDER.index, default=None)
