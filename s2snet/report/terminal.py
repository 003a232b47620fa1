"""Print a result on the terminal: a line of accuracies per defence, then the verdict and the audit."""

import json
import textwrap
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report import findings
from s2snet.report.formatting import budget_text, percent, title_of
from s2snet.report.verdict import budgets_of, sentences

THREATS = ("gray_box", "white_box", WORST_CASE)  # shown for each budget, if present


def summary(folder: Path, remedies: bool = False) -> None:
    """Print the worst-case accuracy under each threat in percent, from table.csv and run.json, then the audit.

    With `remedies`, each doubtful check of the audit is printed in full.
    """
    headlines = headline(read_table(folder / "table.csv"))
    run = json.loads((folder / "run.json").read_text())
    console = Console(highlight=False, markup=False)
    for norm in dict.fromkeys(norm for norm, _ in budgets_of(headlines)):
        radii = [budget for other, budget in budgets_of(headlines) if other == norm]
        threats = [t for t in THREATS if any((d["name"], t, norm, radii[0]) in headlines for d in run["defences"])]
        legend = " / ".join(title_of(threat).lower() for threat in threats)
        title = f"Accuracy under {title_of(norm)} attacks, %: {legend}"
        table = Table(title=title, title_justify="left", box=SIMPLE)
        table.add_column("defence")
        table.add_column("clean", justify="right")
        for radius in radii:
            table.add_column(budget_text(radius, norm), justify="right")
        for defence in run["defences"]:
            lines = [[headlines.get((defence["name"], threat, norm, r)) for threat in threats] for r in radii]
            attacked = [" / ".join(_percent(line) for line in threat_lines) for threat_lines in lines]
            table.add_row(defence["title"], _percent(headlines.get((defence["name"], CLEAN, "", 0.0))), *attacked)
        console.print(table)
    for sentence in sentences(headlines, run["defences"]):
        console.print(sentence)
    print_audit(folder, remedies)
    failed = [cell for cell in run["cells"] if cell["status"] != "done"]
    if failed:
        console.print(f"{len(failed)} cells failed; worst cases without them are upper bounds")


def print_audit(folder: Path, remedies: bool = True) -> None:
    """Print the `audit_lines` of a result folder, wrapped to the terminal."""
    console = Console(highlight=False, markup=False)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for line in audit_lines(folder, run["defences"], remedies):
        indent = " " * (len(line) - len(line.lstrip()) + 3)
        console.print(textwrap.fill(line, console.width, subsequent_indent=indent), soft_wrap=True)


def audit_lines(folder: Path, defences: list[dict], remedies: bool) -> list[str]:
    """Return a line per defence with the audit's verdict and its worst checks, or one line if the audit was off.

    With `remedies`, each doubtful check has lines of its own: its evidence, the part it points at, and the remedy.
    """
    audit = findings.read(folder)
    if audit is None:
        return []
    if not audit["findings"]:
        return [f"Audit: {findings.OFF}"]
    lines = []
    for defence in defences:
        name = defence["name"]
        doubts = [f for f in audit["findings"] if f["defence"] in (name, "") and f["verdict"] in ("fail", "warn")]
        worst = [f["check"] for f in doubts if f["verdict"] == doubts[0]["verdict"]]  # the file has the worst first
        checks = [] if remedies else list(dict.fromkeys(worst))
        lines.append(f"Audit of {defence['title']}: {', '.join([audit['verdicts'][name], *checks])}")
        for finding in doubts if remedies else []:
            part = f" [{finding['part']}]" if finding["part"] else ""
            lines.append(f"  {finding['verdict']} {finding['check']}{part}: {finding['evidence']}")
            lines.append(f"    -> {finding['remedy']}")
    return lines


def claims(folder: Path, studies: list[str]) -> None:
    """Print the claims of each study: verdict and claim, then the numbers behind them."""
    console = Console(highlight=False, markup=False)
    for name in studies:
        study = json.loads((folder / "analysis" / name / "study.json").read_text(encoding="utf-8"))
        console.print(f"\n{name}")
        for claim in study["claims"]:
            for line, indent in ((f"{claim['verdict']:<9} {claim['says']}", 2), (claim["found"], 12)):
                text = textwrap.fill(line, console.width, initial_indent=" " * indent, subsequent_indent=" " * 12)
                console.print(text, soft_wrap=True)


def _percent(line: dict | None) -> str:
    return percent(line["accuracy"] if line else None, unit=False)
