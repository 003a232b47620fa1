"""audit.html, one page for a reviewer, from a result folder's audit.json, run.json and table.csv.

Self-contained like report.html, and without scripts. The same result gives the same bytes.
"""

import json
from pathlib import Path

from markupsafe import Markup

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report import findings, page, verdict
from s2snet.report.palette import DARK, LIGHT


def write_audit(folder: str | Path) -> Path | None:
    """Write audit.html into the result folder and return its path; if nothing was audited, None and no page."""
    folder = Path(folder)
    path = folder / "audit.html"
    audit = findings.read(folder)
    if audit is None or not audit["findings"]:
        path.unlink(missing_ok=True)
        return None
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = read_table(folder / "table.csv")
    run["defences"] = page.listed_defences(run["defences"], lines)
    headlines = headline(lines)
    budgets = verdict.budgets_of(headlines)
    html = (
        page.environment()
        .get_template("audit.html.j2")
        .render(
            run=run,
            audit=findings.arranged(audit, run["defences"]),
            defences=[
                {
                    **defence,
                    "clean": headlines.get((defence["name"], CLEAN, "", 0.0)),
                    "worst": [headlines.get((defence["name"], WORST_CASE, *budget)) for budget in budgets],
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
