"""The result on a terminal: one line per defence, what it keeps clean and at each budget; then the verdict."""

import json
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report.verdict import budgets_of, sentences
from s2snet.report.words import budget_text, percent, title_of

THREATS = ("gray_box", "white_box", WORST_CASE)  # the columns of each budget, where they exist


def summary(folder: Path) -> None:
    """Prints robust accuracy in percent, worst attack of each threat, from the folder's table.csv and run.json."""
    speaking = headline(read_table(folder / "table.csv"))
    run = json.loads((folder / "run.json").read_text())
    console = Console(highlight=False)
    for norm in dict.fromkeys(norm for norm, _ in budgets_of(speaking)):
        radii = [budget for other, budget in budgets_of(speaking) if other == norm]
        threats = [t for t in THREATS if any((d["name"], t, norm, radii[0]) in speaking for d in run["defences"])]
        legend = " / ".join(title_of(threat).lower() for threat in threats)
        title = f"Accuracy under {title_of(norm)} attacks, %: {legend}"
        table = Table(title=title, title_justify="left", box=SIMPLE)
        table.add_column("defence")
        table.add_column("clean", justify="right")
        for radius in radii:
            table.add_column(budget_text(radius, norm), justify="right")
        for defence in run["defences"]:
            lines = [[speaking.get((defence["name"], threat, norm, r)) for threat in threats] for r in radii]
            attacked = [" / ".join(_percent(line) for line in threat_lines) for threat_lines in lines]
            table.add_row(defence["title"], _percent(speaking.get((defence["name"], CLEAN, "", 0.0))), *attacked)
        console.print(table)
    for sentence in sentences(speaking, run["defences"]):
        console.print(sentence)
    for sentence in audited(folder, run["defences"]):
        console.print(sentence)
    failed = [cell for cell in run["cells"] if cell["status"] != "done"]
    if failed:
        console.print(f"{len(failed)} cells failed; they count for nothing, and what lacks them is an upper bound")


def audited(folder: Path, defences: list[dict]) -> list[str]:
    """A line per defence: the audit's verdict and the checks behind it; one line where nothing was audited."""
    path = folder / "audit.json"
    if not path.is_file():
        return []
    audit = json.loads(path.read_text(encoding="utf-8"))
    if not audit["findings"]:
        return ["Audit: off; nobody has checked whether these numbers can be believed."]
    said = []
    for defence in defences:
        verdict = audit["verdicts"][defence["name"]]
        wanted = verdict.partition("(")[0].lower()
        checks = [
            finding["check"]
            for finding in audit["findings"]
            if finding["verdict"] == wanted != "pass" and finding["defence"] in (defence["name"], "")
        ]
        said.append(f"Audit of {defence['title']}: {verdict}" + (f", {', '.join(checks)}" if checks else ""))
    return said


def _percent(line: dict | None) -> str:
    return percent(line["accuracy"] if line else None, unit=False)
