"""Print the tables of README.md and docs/evaluation.md from the table.csv of results.

    python scripts/readme_table.py docs/results/digits                 defences by threat
    python scripts/readme_table.py docs/results/index_maps 8/255       defences by route of the white box

A test compares the pages with this output, so that their figures are those of the files.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report.details import by_route
from s2snet.report.formatting import budget_text, percent, title_of
from s2snet.report.verdict import budgets_of


def markdown(folder: Path) -> str:
    """Return one line per defence: clean accuracy, gray box and worst case at each budget with intervals, audit."""
    table = headline(read_table(folder / "table.csv"))
    run = json.loads((folder / "run.json").read_text())
    budgets = budgets_of(table)
    heads = [
        f"{title_of(norm)} {budget_text(budget, norm)}, {who}"
        for norm, budget in budgets
        for who in ("gray box", "worst case")
    ]
    lines = [["", "clean", *heads, "audit"], ["---"] * (3 + len(heads))]
    for defence in run["defences"]:
        keys = [(t, norm, budget) for norm, budget in budgets for t in ("gray_box", WORST_CASE)]
        attacked = [_cell(table[defence["name"], *key]) for key in keys]
        clean = table[defence["name"], CLEAN, "", 0.0]
        lines.append([defence["title"], _cell(clean), *attacked, clean["audit"]])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def routes(folder: Path, budget: float) -> str:
    """Return one line per defence with a purifier: white-box accuracy by each route at a Linf budget, in percent."""
    run = json.loads((folder / "run.json").read_text())
    (block,) = [
        block
        for block in by_route(read_table(folder / "table.csv"), run["defences"])
        if block["norm"] == "linf" and abs(block["budget"] - budget) < 1e-9
    ]
    names = [*(f"`{route}`" for route in block["routes"]), "worst case"]
    lines = [["", *names], ["---"] * (1 + len(names))]
    for row in block["rows"]:
        cells = [*row["cells"].values(), row["worst"]]
        lines.append([row["title"], *(percent(line["accuracy"], unit=False) if line else "" for line in cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(line: dict) -> str:
    low, high = (percent(line[end], unit=False) for end in ("low", "high"))
    return f"{percent(line['accuracy'], unit=False)} ({low}-{high})"


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(routes(Path(sys.argv[1]), float(Fraction(sys.argv[2]))))
    else:
        print(markdown(Path(sys.argv[1])))
