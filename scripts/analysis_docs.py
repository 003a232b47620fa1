"""Writes the measured claims into docs/analyses/*.md from the studies kept in docs/results/analyses.

    python scripts/analysis_docs.py                      # fills the pages; a test holds that they are what this makes
    python scripts/analysis_docs.py keep results/digits  # copies a result's studies into docs/results

Each page has, where a study's claims belong, the lines `<!-- claims DATA -->` and `<!-- end -->`; what is between them
comes from docs/results/analyses/DATA/STUDY/study.json.
"""

import json
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
KEPT = DOCS / "results" / "analyses"
MARKS = re.compile(r"(<!-- claims (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(path: Path) -> str:
    """The page with its claims as they are in the results."""
    return MARKS.sub(lambda found: found[1] + claims(path.stem, found[2]) + found[3], path.read_text(encoding="utf-8"))


def claims(study: str, data: str) -> str:
    """A study's claims on one data set, as a table under the command that made them."""
    found = json.loads((KEPT / data / study / "study.json").read_text(encoding="utf-8"))
    lines = [f"`{found['command']}`", "", "| claim | | found |", "|---|---|---|"]
    for claim in found["claims"]:
        source = "ours" if claim["source"] == "ours" else claim["source"]
        because = f" *Differs because:* {claim['because']}" if claim["because"] else ""
        cells = (f"{claim['says']} ({source})", f"**{claim['verdict']}**", claim["found"] + because)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def keep(folder: Path) -> None:
    """Copies what a result's studies say, without parts, pictures and the machine's own settings."""
    for study in sorted((folder / "analysis").glob("*/study.json")):
        facts = json.loads(study.read_text(encoding="utf-8"))
        to = KEPT / facts["data"] / facts["study"]
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True)
        del facts["config"]
        for defence in facts["defences"]:  # a file outside the working folder by its name alone
            defence["files"] = [Path(file).name if Path(file).is_absolute() else file for file in defence["files"]]
        (to / "study.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        for table in study.parent.glob("*.csv"):
            shutil.copy(table, to)


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        for given in sys.argv[2:]:
            keep(Path(given))
    for page in sorted((DOCS / "analyses").glob("*.md")):
        page.write_text(filled(page), encoding="utf-8")
        print(page)
