"""Write report.html and figures/ from the files of a result folder.

The page is self-contained: style, script, figures and images are inline. The same result gives the same bytes.
"""

import json
import re
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, headline_budget, read_table
from s2snet.report import details, findings, svg, verdict
from s2snet.report.explorer import explorer
from s2snet.report.figures import curves, distances
from s2snet.report.formatting import budget_text, in_order, interval_text, percent, title_of
from s2snet.report.palette import DARK, LIGHT, UNDEFENDED, colour, slots
from s2snet.report.studies.sections import sections

HERE = Path(__file__).parent
MAX_VALUES = 3  # an option with more values over the cells is shown as a range


def write_report(folder: str | Path, studies: list[dict] | None = None) -> Path:
    """Write figures/*.svg and report.html into the result folder, and return the path of the page.

    `studies` are the `sections` of its studies, if they are drawn already.
    """
    folder = Path(folder)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = read_table(folder / "table.csv")
    run["defences"] = listed_defences(run.get("defences", []), lines)
    headlines = headline(lines)
    places = {defence["name"]: place for place, defence in enumerate(run["defences"])}
    budget = headline_budget(verdict.budgets_of(headlines))
    subject = verdict.subject(headlines, run["defences"], budget) if budget else None
    audit = findings.read(folder)
    figures = draw_figures(folder / "figures", run, headlines)
    html = (
        environment()
        .get_template("page.html.j2")
        .render(
            run=run,
            verdict=verdict.sentences(headlines, run["defences"]),
            defences=[one_defence(defence, headlines, run) for defence in run["defences"]],
            audit=findings.arranged(audit, run["defences"]) if audit else None,
            figures=figures,
            distances=draw_distances(folder, run),
            routes=details.by_route(lines, run["defences"]),
            purifiers=details.purifiers(folder, run["defences"]),
            studies=sections(folder) if studies is None else studies,
            lines=sorted(lines, key=lambda line: places[line["defence"]]),
            filters=filters(lines, places),
            explorer=explorer(folder, run, subject["name"] if subject else None),
            attacks=attack_options(run["cells"]),
            failed=failures(run["cells"]),
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
            script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
            light=LIGHT,
            dark=DARK,
            CLEAN=CLEAN,
            WORST_CASE=WORST_CASE,
        )
    )
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8", newline="\n")
    return path


def environment() -> Environment:
    """Return the Jinja environment, with autoescaping: class names, titles and notes are shown as text."""
    jinja = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"title_of": title_of, "percent": percent, "interval": interval_text}
    jinja.tests |= {"bound": verdict.is_bound}
    jinja.globals |= {"budget_text": budget_text}
    return jinja


def listed_defences(defences: list[dict], lines: list[dict]) -> list[dict]:
    """Return the run's defences, then those that occur only in the table, each with a title and a palette slot."""
    known = {defence["name"] for defence in defences}
    others = [name for name in dict.fromkeys(line["defence"] for line in lines) if name not in known]
    defences = defences + [{"name": name} for name in others]
    slot = slots([defence["name"] for defence in defences])
    return [
        {**defence, "title": defence.get("title") or title_of(defence["name"]), "slot": slot[defence["name"]]}
        for defence in defences
    ]


def one_defence(defence: dict, headlines: dict, run: dict) -> dict:
    """Return the headline entry of a defence: its clean accuracy, a bar per budget, and a summary."""
    classes = max(len(run["classes"]), 1)
    groups: dict[str, list] = {}
    for norm, budget in verdict.budgets_of(headlines):
        line = headlines.get((defence["name"], WORST_CASE, norm, budget))
        if line is None:
            continue
        mildest = verdict.mildest(headlines, defence["name"], norm, budget)
        groups.setdefault(norm, []).append(
            {
                "line": line,
                "mildest": mildest if mildest >= 0 else None,
                "state": verdict.state(headlines, defence["name"], norm, budget, classes),
            }
        )
    return {
        **defence,
        "colour": colour(defence["slot"]),
        "clean": headlines.get((defence["name"], CLEAN, "", 0.0)),
        "groups": groups,
        "summary": verdict.summary(headlines, defence["name"], classes),
        "undefended": defence["name"] == UNDEFENDED,
    }


def draw_figures(folder: Path, run: dict, headlines: dict) -> list[dict]:
    """Write a figure per norm and threat, and return them by norm for embedding."""
    folder.mkdir(exist_ok=True)
    titles = {defence["name"]: defence["title"] for defence in run["defences"]}
    slot = {defence["name"]: defence["slot"] for defence in run["defences"]}
    threats = in_order({threat for _, threat, _, _ in headlines} - {CLEAN, WORST_CASE})
    drawn = []
    for norm in dict.fromkeys(norm for norm, _ in verdict.budgets_of(headlines)):
        panels = []
        for threat in [*threats, WORST_CASE]:
            if not any((key[1], key[2]) == (threat, norm) for key in headlines):
                continue
            name = re.sub(r"[^\w-]", "_", f"curves-{norm}-{threat}")  # becomes a file name and ids in the page
            draw = partial(curves.draw, headlines, norm=norm, threat=threat, titles=titles, slot=slot)
            text = svg.render(draw, width=4.3, height=3.0, right=curves.room(titles))
            (folder / f"{name}.svg").write_text(text, encoding="utf-8", newline="\n")
            alt = f"Accuracy over {title_of(norm)} budget, {title_of(threat)}; the table below has the numbers."
            panels.append({"threat": threat, "svg": svg.inline(text, name, alt)})
        drawn.append({"norm": norm, "panels": panels})
    return drawn


def draw_distances(folder: Path, run: dict) -> list[Markup]:
    """Write a figure per normalised distance of curves.csv, and return them for embedding."""
    titles = {defence["name"]: defence["title"] for defence in run["defences"]}
    slot = {defence["name"]: defence["slot"] for defence in run["defences"]}
    drawn = []
    for distance, lines in sorted(details.distance_curves(folder).items()):
        if not distance.startswith("l2_"):
            continue
        draw = partial(distances.draw, lines, distance=distance, titles=titles, slot=slot)
        text = svg.render(draw, width=4.3, height=3.0, right=curves.room(titles))
        (folder / "figures" / f"distance-{distance}.svg").write_text(text, encoding="utf-8", newline="\n")
        drawn.append(svg.inline(text, f"distance-{distance}", f"Accuracy over {distances.AXES[distance]}."))
    return drawn


def filters(lines: list[dict], places: dict[str, int]) -> dict[str, list[str]]:
    """Return the values of the table's filters: defences in the run's order, the others in the table's."""
    return {
        "defence": list(places),
        "threat": list(dict.fromkeys(line["threat"] for line in lines)),
        "norm": list(dict.fromkeys(line["norm"] for line in lines if line["norm"])),
    }


def attack_options(cells: list[dict]) -> list[dict]:
    """Return each attack once, with the values or the range of each option over its cells."""
    attacks: dict[str, dict[str, list]] = {}
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell["attack"]] = counts.get(cell["attack"], 0) + 1
        options = attacks.setdefault(cell["attack"], {})
        for name, value in (cell.get("options") or {}).items():
            values = options.setdefault(name, [])
            if value not in values:
                values.append(value)
    return [
        {
            "name": name,
            "cells": counts[name],
            "options": {key: values_text(values) for key, values in options.items()},
        }
        for name, options in attacks.items()
    ]


def failures(cells: list[dict]) -> dict[str, int]:
    """Return {"threat, route, attack: reason": number of failed cells}."""
    counts: dict[str, int] = {}
    for cell in cells:
        if cell["status"] != "done":
            name = ", ".join(title_of(cell[part]) for part in ("threat", "route", "attack"))
            failure = f"{name}: {cell.get('reason') or cell['status']}"
            counts[failure] = counts.get(failure, 0) + 1
    return counts


def values_text(values: list) -> str:
    """Return the values as text: `40`, `0.002, 0.004` or `0.002 to 0.1 (8 values)`."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    texts = [f"{value:.4g}" if numbers else str(value) for value in (sorted(values) if numbers else values)]
    if len(texts) <= MAX_VALUES:
        return ", ".join(texts)
    return f"{texts[0]} to {texts[-1]} ({len(texts)} values)" if numbers else f"{len(texts)} values"
