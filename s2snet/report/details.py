"""Collect details for the page: accuracy by route, the purifiers' effect on clean images, and distance curves."""

import csv
import json
from pathlib import Path

from s2snet.evaluation.schema import CLEAN, WORST_CASE


def by_route(lines: list[dict], defences: list[dict]) -> list[dict]:
    """Return, for each norm and budget, the white-box accuracy of each defence by route, and their worst case.

    Defences with a single route are left out; so are budgets for which no defence has several.
    """
    white_box = [line for line in lines if line["threat"] == "white_box" and line["budget"] != float("inf")]
    blocks = []
    pairs = sorted({(line["norm"], line["budget"]) for line in white_box}, key=lambda pair: (pair[0] != "linf", pair))
    for norm, budget in pairs:
        at_budget = [line for line in white_box if (line["norm"], line["budget"]) == (norm, budget)]
        routes = [route for route in dict.fromkeys(line["route"] for line in at_budget) if route != WORST_CASE]
        rows = []
        for defence in defences:
            own = [line for line in at_budget if line["defence"] == defence["name"]]
            cells = {route: _worst([line for line in own if line["route"] == route]) for route in routes}
            if sum(line is not None for line in cells.values()) > 1:
                worst = next((line for line in own if line["route"] == WORST_CASE), None)
                rows.append({"title": defence["title"], "cells": cells, "worst": worst})
        if rows:
            blocks.append({"norm": norm, "budget": budget, "routes": routes, "rows": rows})
    return blocks


def _worst(lines: list[dict]) -> dict | None:
    """Return the worst case over a route's attacks, or its only line."""
    return next((line for line in lines if line["attack"] == WORST_CASE), lines[0] if lines else None)


def purifiers(folder: Path, defences: list[dict]) -> list[dict]:
    """Return, for each purifier, its accuracy cost, PSNR, SSIM, change of clean images and inference time."""
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
    """Return {distance: points of the worst-case curves} from curves.csv."""
    curves: dict[str, list[dict]] = {}
    for line in _csv(folder / "curves.csv"):
        if line["threat"] == WORST_CASE:
            point = {"defence": line["defence"], "at": float(line["at"]), "accuracy": float(line["accuracy"])}
            curves.setdefault(line["distance"], []).append(point)
    return curves


def _csv(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _timing(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
