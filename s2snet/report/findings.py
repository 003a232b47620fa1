"""The audit of a result folder, from audit.json, as the pages and the terminal tell it: by check, the worst first.

Names, evidence and remedies are the checks' (s2snet/checks); nothing is judged here.
"""

import json
from pathlib import Path
from typing import Any

from s2snet.report.verdict import joined

ORDER = ("fail", "warn", "pass", "not applicable")  # as the checks' verdicts, worst first
CONSEQUENCES = {  # verdict: what follows, by whose numbers and how many checks said so
    "fail": "Do not believe {whose} yet: {checks} failed.",
    "warn": "Read {whose} with care: {checks} gave a warning.",
}
NO_DOUBT = "No check found a reason to doubt these numbers."
OFF = "Nobody has checked whether these numbers can be believed: the audit was off."


def read(folder: Path) -> dict[str, Any] | None:
    """What audit.json holds; None for a folder that was never audited."""
    path = folder / "audit.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def arranged(audit: dict[str, Any], defences: list[dict]) -> dict[str, Any]:
    """The findings by check: those that doubt a number (`wrong`), those that `passed`, and the `unasked`.

    Of each check: name, claim, remedy, its worst verdict, a verdict per defence for a table's columns (None where it
    said nothing) and its answers. `defences` have a name and a title; what is said of the whole evaluation stands in
    every column. A check that found nothing to look at is unasked, with the reason where it gave one.
    """
    titles = {defence["name"]: defence["title"] for defence in defences} | {"": "the evaluation"}
    checks = []
    for name, claim in audit["checks"].items():
        found = [finding for finding in audit["findings"] if finding["check"] == name]
        checks.append(
            {
                "name": name,
                "claim": claim,
                "remedy": found[0]["remedy"] if found else "",
                "verdict": _worst(found),
                "columns": [_worst([f for f in found if f["defence"] in (d["name"], "")]) for d in defences],
                "answers": [{**f, "title": titles.get(f["defence"], f["defence"])} for f in found],
            }
        )
    by_verdict = {verdict: [check for check in checks if check["verdict"] == verdict] for verdict in (*ORDER, None)}
    return {
        "effort": audit["audit"],
        "off": not audit["findings"],
        "verdicts": audit["verdicts"],
        "consequence": consequence(audit, defences),
        "wrong": by_verdict["fail"] + by_verdict["warn"],
        "passed": by_verdict["pass"],
        "unasked": by_verdict[ORDER[-1]] + by_verdict[None],
    }


def consequence(audit: dict[str, Any], defences: list[dict]) -> str:
    """One sentence on what the worst verdicts mean, and for whose numbers."""
    if not audit["findings"]:
        return OFF
    for verdict, sentence in CONSEQUENCES.items():
        count = len({finding["check"] for finding in audit["findings"] if finding["verdict"] == verdict})
        if count:
            said = audit["verdicts"]
            whose = [d["title"] for d in defences if said.get(d["name"], "").startswith(verdict.upper())]
            return sentence.format(
                whose="these numbers" if len(whose) == len(said) else f"the numbers of {joined(whose)}",
                checks="one check" if count == 1 else f"{count} checks",
            )
    return NO_DOUBT


def _worst(found: list[dict]) -> str | None:
    return min((finding["verdict"] for finding in found), key=ORDER.index, default=None)
