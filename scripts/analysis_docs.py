"""Write what the documentation repeats of the studies: the measured claims, and the README's list.

    python scripts/analysis_docs.py                      # fills docs/analyses/*.md and the list of studies in README.md
    python scripts/analysis_docs.py keep results/digits  # copies a result's studies into docs/results first

A page has, at the place of a study's claims, the lines `<!-- claims DATA -->` and `<!-- end -->`; what is between them
comes from docs/results/analyses/DATA/STUDY/study.json. A study without a page gets a first one, to complete by hand.
The README's list is that of s2snet.analysis.STUDIES. Tests check that all of it is up to date.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from s2snet.analysis import STUDIES, load

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "analyses"
KEPT = ROOT / "docs" / "results" / "analyses"
MARKS = re.compile(r"(<!-- claims (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
LIST = re.compile(r"(?:^python analyse\.py study=\[\w+\] +#.*\n)+", re.MULTILINE)
NONE_KEPT = "No result is kept yet: `python scripts/analysis_docs.py keep results/{data}` keeps one.\n"


def filled(page: Path) -> str:
    """Return the text of a page with its claims as they are in the kept results."""
    text = page.read_text(encoding="utf-8")
    return MARKS.sub(lambda marks: marks[1] + claims(page.stem, marks[2]) + marks[3], text)


def claims(study: str, data: str) -> str:
    """Return a study's claims on one data set as a table below the command that measured them."""
    kept = KEPT / data / study / "study.json"
    if not kept.is_file():
        return NONE_KEPT.format(data=data)
    facts = json.loads(kept.read_text(encoding="utf-8"))
    lines = [f"`{facts['command']}`", "", "| claim | | found |", "|---|---|---|"]
    for claim in facts["claims"]:
        because = f" *Differs because:* {claim['because']}" if claim["because"] else ""
        cells = (f"{claim['says']} ({claim['source']})", f"**{claim['verdict']}**", claim["found"] + because)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def first_page(study: str) -> str:
    """Return the page of a study that has none: its title, command and question, and the mark for its claims."""
    figures = load(study, "figures")
    command = f"    python analyse.py study=[{study}]"
    return "\n\n".join([f"# {figures.TITLE}", command, figures.QUESTION, "<!-- claims digits -->\n<!-- end -->\n"])


def listed(readme: str) -> str:
    """Return the text of the README with its list of studies as in the registry; unchanged if it has no list."""
    lines = [f"{f'python analyse.py study=[{name}]':<41} # {about}\n" for name, about in STUDIES.items()]
    return LIST.sub("".join(lines), readme)


def keep(folder: Path) -> None:
    """Copy a result's studies without parts, pictures and the settings of the machine."""
    for study in sorted((folder / "analysis").glob("*/study.json")):
        facts = json.loads(study.read_text(encoding="utf-8"))
        to = KEPT / facts["data"] / facts["study"]
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True)
        del facts["config"]
        for defence in facts["defences"]:  # of a file outside the working folder, the name only
            defence["files"] = [Path(file).name if Path(file).is_absolute() else file for file in defence["files"]]
        (to / "study.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        for table in study.parent.glob("*.csv"):
            shutil.copy(table, to)


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        for given in sys.argv[2:]:
            keep(Path(given))
    for name in STUDIES:
        page = PAGES / f"{name}.md"
        if not page.is_file():
            page.write_text(first_page(name), encoding="utf-8")
        page.write_text(filled(page), encoding="utf-8")
        print(page)
    readme = ROOT / "README.md"
    readme.write_text(listed(readme.read_text(encoding="utf-8")), encoding="utf-8")
    print(readme)
