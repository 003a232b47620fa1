"""audit.html from a result folder's audit.json, run.json and table.csv: one page to hand to a reviewer.

Self-contained as report.html is, and without any script. The same result gives the same bytes.
"""

import json
from pathlib import Path

from markupsafe import Markup

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report import findings, page, verdict
from s2snet.report.palette import DARK, LIGHT


def write_audit(folder: str | Path) -> Path | None:
    """Writes audit.html into the result folder and returns its path; None, and no page, where nothing was audited."""
    folder = Path(folder)
    path = folder / "audit.html"
    audit = findings.read(folder)
    if audit is None or not audit["findings"]:
        path.unlink(missing_ok=True)
        return None
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = read_table(folder / "table.csv")
    run["defences"] = page.listed_defences(run["defences"], lines)
    speaking = headline(lines)
    budgets = verdict.budgets_of(speaking)
    html = (
        page.environment()
        .get_template("audit.html.j2")
        .render(
            run=run,
            audit=findings.arranged(audit, run["defences"]),
            defences=[
                {
                    **defence,
                    "clean": speaking.get((defence["name"], CLEAN, "", 0.0)),
                    "worst": [speaking.get((defence["name"], WORST_CASE, *at)) for at in budgets],
                }
                for defence in run["defences"]
            ],
            budgets=budgets,
            attacks=page.attack_options(run["cells"]),
            failed=page.failures(run["cells"]),
            style=Markup((page.HERE / "page.css").read_text(encoding="utf-8")),
            light=LIGHT,
            dark=DARK,
        )
    )
    path.write_text(html, encoding="utf-8", newline="\n")
    return path
