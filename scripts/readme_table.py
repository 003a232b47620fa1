"""Prints the README's table from a result's table.csv: python scripts/readme_table.py docs/results/digits

A test compares the README with what this prints, so that its figures are the file's.
"""

import json
import sys
from pathlib import Path

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report.verdict import budgets_of
from s2snet.report.words import budget_text, percent, title_of


def markdown(folder: Path) -> str:
    """One line per defence: clean accuracy, then gray box and worst case with intervals at each budget, in percent."""
    speaking = headline(read_table(folder / "table.csv"))
    run = json.loads((folder / "run.json").read_text())
    budgets = budgets_of(speaking)
    heads = [
        f"{title_of(norm)} {budget_text(budget, norm)}, {who}"
        for norm, budget in budgets
        for who in ("gray box", "worst case")
    ]
    lines = [["", "clean", *heads], ["---"] * (2 + len(heads))]
    for defence in run["defences"]:
        keys = [(t, norm, budget) for norm, budget in budgets for t in ("gray_box", WORST_CASE)]
        attacked = [_cell(speaking[defence["name"], *key]) for key in keys]
        lines.append([defence["title"], _cell(speaking[defence["name"], CLEAN, "", 0.0]), *attacked])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(line: dict) -> str:
    low, high = (percent(line[end], unit=False) for end in ("low", "high"))
    return f"{percent(line['accuracy'], unit=False)} ({low}-{high})"


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1])))
