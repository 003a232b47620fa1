"""Write analysis.html from the studies in a result folder, and report.html again if it has an evaluation too."""

from pathlib import Path

from markupsafe import Markup

from s2snet.report import page
from s2snet.report.palette import DARK, LIGHT
from s2snet.report.studies.sections import sections


def write_analysis(folder: str | Path) -> dict[str, Path]:
    """Write the pages and return their paths by name. The same studies give the same bytes."""
    folder = Path(folder)
    studies = sections(folder)
    html = (
        page.environment()
        .get_template("studies/page.html.j2")
        .render(
            name=folder.name,
            studies=studies,
            light=LIGHT,
            dark=DARK,
            style=Markup((page.HERE / "page.css").read_text(encoding="utf-8")),
        )
    )
    path = folder / "analysis.html"
    path.write_text(html, encoding="utf-8", newline="\n")
    if not (folder / "run.json").is_file():
        return {"analysis": path}
    return {"analysis": path, "report": page.write_report(folder, studies)}
