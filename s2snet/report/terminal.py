"""The result on a terminal: one line per defence, what it keeps clean and at each budget; then the verdict."""

import json
import textwrap
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report import findings
from s2snet.report.verdict import budgets_of, sentences
from s2snet.report.words import budget_text, percent, title_of

THREATS = ("gray_box", "white_box", WORST_CASE)  # the columns of each budget, where they exist


def summary(folder: Path, remedies: bool = False) -> None:
    """Prints robust accuracy in percent, worst attack of each threat, from the folder's table.csv and run.json.

    Then what the audit found, with `remedies` in full.
    """
    speaking = headline(read_table(folder / "table.csv"))
    run = json.loads((folder / "run.json").read_text())
    console = Console(highlight=False, markup=False)
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
    print_audit(folder, remedies)
    failed = [cell for cell in run["cells"] if cell["status"] != "done"]
    if failed:
        console.print(f"{len(failed)} cells failed; they count for nothing, and what lacks them is an upper bound")


def print_audit(folder: Path, remedies: bool = True) -> None:
    """Prints what `audited` says of a result folder, wrapped to the terminal."""
    console = Console(highlight=False, markup=False)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for line in audited(folder, run["defences"], remedies):
        indent = " " * (len(line) - len(line.lstrip()) + 3)
        console.print(textwrap.fill(line, console.width, subsequent_indent=indent), soft_wrap=True)


def audited(folder: Path, defences: list[dict], remedies: bool) -> list[str]:
    """A line per defence: the audit's verdict and the checks behind it; one line where nothing was audited.

    With `remedies` each of those checks has lines of its own: what it saw, the part it points at, what to do.
    """
    audit = findings.read(folder)
    if audit is None:
        return []
    if not audit["findings"]:
        return [f"Audit: {findings.OFF}"]
    said = []
    for defence in defences:
        name = defence["name"]
        doubts = [f for f in audit["findings"] if f["defence"] in (name, "") and f["verdict"] in ("fail", "warn")]
        worst = [f["check"] for f in doubts if f["verdict"] == doubts[0]["verdict"]]  # the file has the worst first
        checks = [] if remedies else list(dict.fromkeys(worst))
        said.append(f"Audit of {defence['title']}: {', '.join([audit['verdicts'][name], *checks])}")
        for finding in doubts if remedies else []:
            part = f" [{finding['part']}]" if finding["part"] else ""
            said.append(f"  {finding['verdict']} {finding['check']}{part}: {finding['evidence']}")
            said.append(f"    -> {finding['remedy']}")
    return said


def claims(folder: Path, studies: list[str]) -> None:
    """Prints what each study came to: a claim with its verdict, then the numbers behind it."""
    console = Console(highlight=False, markup=False)
    for name in studies:
        found = json.loads((folder / "analysis" / name / "study.json").read_text(encoding="utf-8"))
        console.print(f"\n{name}")
        for claim in found["claims"]:
            for line, indent in ((f"{claim['verdict']:<9} {claim['says']}", 2), (claim["found"], 12)):
                text = textwrap.fill(line, console.width, initial_indent=" " * indent, subsequent_indent=" " * 12)
                console.print(text, soft_wrap=True)


def _percent(line: dict | None) -> str:
    return percent(line["accuracy"] if line else None, unit=False)
