"""Collect the data of the image explorer: sprite sheets as base64 PNG, and every judge's predictions.

Each cell has one sheet, the perturbation, scaled to 8 bits by the largest change of each image. The page adds it to the
clean sheet to get the adversarial image, so the change is stored once and with a finer resolution than the pixels'.
"""

import base64
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import load_file

from s2snet.evaluation.scores import headline_budget
from s2snet.report.formatting import budget_text, title_of

LARGEST = 2_500_000  # characters of all sheets per channel; above it fewer images are shown, with a note
WIDEST = 112  # pixels; wider images are shown smaller, with a note
SMALLEST = 1e9  # replaces an unlimited budget, because JSON has no infinity; sorts last
LEVELS = 64  # gray levels of purified images: looks the same, and noise compresses a quarter better
COLUMNS = ["crafted", "defence", "image", "label", "prediction", "confidence", "linf", "l2"]


def explorer(folder: Path, run: dict, first: str | None = None) -> dict | None:
    """Return the explorer's data, ready for JSON, or None if no images were kept.

    `first` is the name of the judge selected when the page opens.
    """
    if not (folder / "samples.safetensors").exists():
        return None
    samples = load_file(folder / "samples.safetensors")
    kept = len(samples.get("image", []))
    if not kept:
        return None
    shrink = -(-samples["clean"].shape[3] // WIDEST)
    limit = LARGEST * samples["clean"].shape[1]
    # First estimate from the pixels, to encode nothing huge; then use the size of the sheets.
    shown = fewer(kept, 3 * limit, sum(tensor.size for key, tensor in samples.items() if key != "image") // shrink**2)
    samples = {key: smaller(tensor[:shown], shrink) for key, tensor in samples.items()}
    data = shown_data(folder, run, samples, first) | {"kept": kept, "shrink": shrink}
    allowed = fewer(shown, limit, length(data))
    if allowed < shown:
        samples = {key: tensor[:allowed] for key, tensor in samples.items()}
        data |= shown_data(folder, run, samples, first)
    return data


def fewer(images: int, limit: int, size: int) -> int:
    """Return the number of images, at least one, for which `size` stays below `limit`."""
    return images if size <= limit else max(images * limit // size, 1)


def smaller(tensor: np.ndarray, factor: int) -> np.ndarray:
    """Average images over squares of `factor` pixels; return other tensors unchanged."""
    if factor == 1 or tensor.ndim != 4:
        return tensor
    n, channels, height, width = (*tensor.shape[:2], *(side // factor for side in tensor.shape[2:]))
    cut = tensor[:, :, : height * factor, : width * factor]
    return cut.reshape(n, channels, height, factor, width, factor).mean(axis=(3, 5))


def length(data: dict) -> int:
    """Return the number of characters of all sheets."""
    clean = len(data["clean"]) + sum(map(len, data["purified_clean"].values()))
    return clean + sum(len(cell["delta"]) + sum(map(len, cell["purified"].values())) for cell in data["cells"])


def shown_data(folder: Path, run: dict, samples: dict[str, np.ndarray], first: str | None) -> dict:
    """Return the data for the images in `samples`."""
    indices = [int(i) for i in samples["image"]]
    answers = read_answers(folder / "rows.parquet", indices)
    clean = samples["clean"]
    judges = run["defences"]
    cells = [one_cell(cell, samples, answers, judges) for cell in run["cells"] if cell["status"] == "done"]
    cells = [cell for cell in cells if cell]
    labels = {image: answer["label"] for (_, _, image), answer in answers.items()}
    names = {cell[part] for cell in cells for part in ("threat", "route", "attack", "norm", "source")}
    return {
        "width": clean.shape[3],
        "height": clean.shape[2],
        "channels": 3 if clean.shape[1] == 3 else 1,
        "images": indices,
        "labels": [labels.get(image) for image in indices],
        "classes": [str(name) for name in run["classes"]],
        "judges": [
            {"name": judge["name"], "title": judge["title"], "purifier": bool(judge.get("has_purifier"))}
            for judge in judges
        ],
        "titles": {name: title_of(name) for name in sorted(names)} | {d["name"]: d["title"] for d in judges},
        "clean": sheet(clean),
        "purified_clean": purified(samples, "clean", judges),
        "answers_clean": judged(answers, "", indices, judges),
        "cells": cells,
        "start": opening(cells, judges, labels, indices, first),
    }


def read_answers(path: Path, indices: list[int]) -> dict[tuple[str, str, int], dict]:
    """Return {(crafted key or "", judge, image): row} for the shown images."""
    shown, answers = pa.array(indices), {}
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1 << 13, columns=COLUMNS):  # bounds the memory
        for row in batch.filter(pc.is_in(batch["image"], shown)).to_pylist():
            answers[row["crafted"] or "", row["defence"], row["image"]] = row
    return answers


def judged(answers: dict, crafted: str, indices: list[int], judges: list[dict]) -> dict[str, list]:
    """Return {judge's position in the list: [prediction, confidence] or None per image}, for judges with any."""
    predictions = {}
    for place, judge in enumerate(judges):
        rows = [answers.get((crafted, judge["name"], image)) for image in indices]
        if any(rows):
            predictions[str(place)] = [row and [row["prediction"], share(row["confidence"])] for row in rows]
    return predictions


def share(value: float) -> float | None:
    """Round to four decimals; None for NaN and infinity, which JSON does not have."""
    return round(float(value), 4) if np.isfinite(value) else None


def one_cell(cell: dict, samples: dict, answers: dict, judges: list[dict]) -> dict | None:
    """Return the sheets and predictions of a cell, or None if its images were not kept or not judged."""
    key = cell["crafted"]
    indices = [int(i) for i in samples["image"]]
    answered = judged(answers, key, indices, judges)
    if f"adversarial/{key}" not in samples or not answered:
        return None
    delta = np.nan_to_num(samples[f"adversarial/{key}"].astype(np.float64) - samples["clean"])
    peak = np.abs(delta).reshape(len(delta), -1).max(axis=1)
    signed = delta / np.where(peak > 0, peak, 1)[:, None, None, None]
    any_judge = judges[int(next(iter(answered)))]["name"]  # the distances are the same for all judges
    rows = [answers.get((key, any_judge, image)) for image in indices]
    return {
        **{part: cell[part] for part in ("threat", "source", "route", "attack", "norm")},
        "budget": SMALLEST if cell["budget"] is None else cell["budget"],
        "text": budget_text(cell["budget"], cell["norm"]),
        "delta": sheet((signed * 127 + 128) / 255),
        "peak": [float(f"{value:.5g}") for value in peak],
        "linf": [row and float(f"{row['linf']:.5g}") for row in rows],
        "l2": [row and float(f"{row['l2']:.5g}") for row in rows],
        "answers": answered,
        "purified": purified(samples, key, judges),
    }


def purified(samples: dict, key: str, judges: list[dict]) -> dict[str, str]:
    """Return {judge's position in the list: sheet of the purified images of cell `key`}, for those kept."""
    sheets = {}
    for place, judge in enumerate(judges):
        for name in (judge.get("judge"), judge["name"]):
            if f"purified/{key}/{name}" in samples:
                sheets[str(place)] = sheet(samples[f"purified/{key}/{name}"], LEVELS)
                break
    return sheets


def sheet(images: np.ndarray, levels: int = 256) -> str:
    """Encode images [n, C, H, W] side by side as a base64 PNG, clipped to [0, 1], which purifiers may leave."""
    images = np.nan_to_num(np.asarray(images, np.float32)).clip(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(axis=1, keepdims=True)
    n, channels, height, width = images.shape
    strip = images.transpose(2, 0, 3, 1).reshape(height, n * width, channels)
    pixels = np.rint(np.rint(strip * (levels - 1)) / (levels - 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, format="PNG", compress_level=9)
    return base64.b64encode(file.getvalue()).decode()


def opening(cells: list[dict], judges: list[dict], labels: dict, indices: list[int], first: str | None) -> dict | None:
    """Return the initial selection: judge `first` at the headline budget, with a cell and an image that fool it."""
    at = headline_budget((cell["norm"], cell["budget"]) for cell in cells if cell["budget"] < SMALLEST)
    best = None
    for i, cell in enumerate(cells):
        for place, judge in enumerate(judges):
            rows = cell["answers"].get(str(place))
            if not rows:
                continue
            fooled = [bool(row) and row[0] != labels.get(image) for row, image in zip(rows, indices, strict=True)]
            rank = (judge["name"] == first, (cell["norm"], cell["budget"]) == at, sum(fooled), place)
            if best is None or rank > best[0]:
                best = rank, {"cell": i, "judge": place, "image": fooled.index(True) if any(fooled) else 0}
    return best and best[1]
