"""What lies behind the headline: what each route alone would say, and what the purifiers do to clean images."""

import csv
import json
from pathlib import Path

from s2snet.evaluation.schema import CLEAN, WORST_CASE


def by_route(lines: list[dict], defences: list[dict]) -> list[dict]:
    """Per norm and budget: the white box's routes, and each defence's accuracy by each of them and in their worst case.

    Defences with a single route are left out; so are budgets where no defence has several.
    """
    whites = [line for line in lines if line["threat"] == "white_box" and line["budget"] != float("inf")]
    found = []
    pairs = sorted({(line["norm"], line["budget"]) for line in whites}, key=lambda pair: (pair[0] != "linf", pair))
    for norm, budget in pairs:
        here = [line for line in whites if (line["norm"], line["budget"]) == (norm, budget)]
        routes = [route for route in dict.fromkeys(line["route"] for line in here) if route != WORST_CASE]
        rows = []
        for defence in defences:
            own = [line for line in here if line["defence"] == defence["name"]]
            cells = {route: _worst([line for line in own if line["route"] == route]) for route in routes}
            if sum(line is not None for line in cells.values()) > 1:
                worst = next((line for line in own if line["route"] == WORST_CASE), None)
                rows.append({"title": defence["title"], "cells": cells, "worst": worst})
        if rows:
            found.append({"norm": norm, "budget": budget, "routes": routes, "rows": rows})
    return found


def _worst(lines: list[dict]) -> dict | None:
    """The line of a route's worst case over its attacks, or its only one."""
    return next((line for line in lines if line["attack"] == WORST_CASE), lines[0] if lines else None)


def purifiers(folder: Path, defences: list[dict]) -> list[dict]:
    """Per purifier: the accuracy it costs, PSNR, SSIM, how far it moves a clean image, what a pass costs."""
    figures: dict[str, dict[str, float]] = {}
    for line in _csv(folder / "measures.csv"):
        if line["threat"] == CLEAN and not line["class"]:
            figures.setdefault(line["defence"], {})[line["measure"]] = float(line["value"])
    for line in _timing(folder / "timing.jsonl"):
        if "inference" in line:
            figures.setdefault(line["defence"], {})["times_the_classifier"] = line["times_the_classifier"]
    return [
        {"title": defence["title"], **figures[defence["name"]]}
        for defence in defences
        if defence.get("has_purifier") and defence["name"] in figures
    ]


def distance_curves(folder: Path) -> dict[str, list[dict]]:
    """{distance: the worst-case lines of curves.csv}."""
    found: dict[str, list[dict]] = {}
    for line in _csv(folder / "curves.csv"):
        if line["threat"] == WORST_CASE:
            point = {"defence": line["defence"], "at": float(line["at"]), "accuracy": float(line["accuracy"])}
            found.setdefault(line["distance"], []).append(point)
    return found


def _csv(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _timing(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
