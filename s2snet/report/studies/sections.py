"""Collect what a page shows of a study from its folder: claims, figures, picture grids, tables."""

import csv
import json
from base64 import b64encode
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from s2snet import analysis
from s2snet.report import svg
from s2snet.report.studies.figure import Figure

MOST_ROWS = 40  # of a table on the page; the CSV file has all


def sections(folder: Path) -> list[dict[str, Any]]:
    """Return the sections of all studies in a result folder, in the order of STUDIES; write their figures/*.svg."""
    folders = [folder / "analysis" / name for name in analysis.STUDIES]
    return [section(study) for study in folders if (study / "study.json").is_file()]


def section(folder: Path) -> dict[str, Any]:
    """Return one study as studies/section.html.j2 takes it; write its figures/*.svg."""
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    drawing = analysis.load(study["study"], "figures")
    tables = {path.stem: read_table(path) for path in sorted(folder.glob("*.csv"))}
    return {
        **study,
        "title": drawing.TITLE,
        "question": drawing.QUESTION,
        "tally": dict(Counter(claim["verdict"] for claim in study["claims"]).most_common()),
        "figures": draw_figures(folder, study["study"], drawing.figures(tables)),
        "grids": draw_grids(folder, study["grids"]),
        "tables": [
            {"name": name, "columns": list(rows[0]) if rows else [], "rows": rows[:MOST_ROWS], "count": len(rows)}
            for name, rows in tables.items()
        ],
    }


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file, with numbers and booleans parsed and None for empty fields."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    if text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False}.get(text, text)


def draw_figures(folder: Path, study: str, figures: list[Figure]) -> list[dict[str, Any]]:
    """Write each figure as figures/NAME.svg and return them for the page."""
    (folder / "figures").mkdir(exist_ok=True)
    drawn = []
    for figure in figures:
        text = svg.render(figure.draw, width=figure.width, height=figure.height, right=figure.right)
        (folder / "figures" / f"{figure.name}.svg").write_text(text, encoding="utf-8", newline="\n")
        drawn.append(
            {
                "title": figure.title,
                "caption": figure.caption,
                "wide": figure.width > 6,
                "svg": svg.inline(text, f"{study}-{figure.name}", f"{figure.title}. {figure.caption}"),
            }
        )
    return drawn


def draw_grids(folder: Path, grids: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each grid with its cells as data URIs, row by row."""
    if not grids:
        return []
    images = load_file(folder / "grids.safetensors")
    drawn = []
    for name, grid in grids.items():
        signed = set(grid["signed"])
        cells = [
            [_uri(image, bool(signed & {row, column})) for column, image in zip(grid["columns"], line, strict=True)]
            for row, line in zip(grid["rows"], images[name], strict=True)
        ]
        drawn.append({**grid, "cells": cells})
    return drawn


def _uri(image: np.ndarray, signed: bool) -> str:
    """Return an image [C, H, W] as the data URI of a PNG: in [0, 1], or `signed`, summed over C, in red and blue."""
    image = np.nan_to_num(image)
    if signed:
        image = image.sum(axis=0)
        level = image / (np.abs(image).max() or 1)
        # white at 0, red at the largest positive value, blue at the largest negative one
        pixels = np.stack([1 - np.maximum(-level, 0), 1 - np.abs(level), 1 - np.maximum(level, 0)], axis=-1)
    else:
        pixels = (image if len(image) == 3 else image.mean(axis=0, keepdims=True).repeat(3, axis=0)).transpose(1, 2, 0)
    file = BytesIO()
    Image.fromarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)).save(file, format="PNG", compress_level=9)
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()
