"""Write a synthetic, consistent result folder: rows, cells, table and sample images of one evaluation."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from s2snet.evaluation import measures
from s2snet.evaluation.schema import CLEAN, CURVE_COLUMNS, MEASURE_COLUMNS, ROW_SCHEMA, SCHEMA_VERSION, SORT_ORDER
from s2snet.evaluation.scores import Scores, write_table

DEFENCES = {  # name: title, has a purifier, robustness in the gray box and in the white box
    "none": ("Undefended classifier", False, 5, 5),
    "autoencoder": ("Plain autoencoder", True, 9, 5),
    "s2snet": ("S2SNet", True, 40, 6),
    "adversarial": ("Adversarially trained", False, 40, 17),
}
BUDGETS = {"linf": [2 / 255, 4 / 255, 8 / 255, 16 / 255, 25.5 / 255], "l2": [0.5, 1.0, 2.0]}
L2_IN_LINF = 12 / 255  # the Linf radius with the same effect as an L2 radius of 1
STRENGTH = {"fgsm": 0.8, "bim": 1.0, "pgd": 1.1}


def fingerprint(name: str) -> str:
    """Return a fingerprint for the judge with this name."""
    return hashlib.sha256(name.encode()).hexdigest()


def pictures(count: int, size: int, channels: int, random: np.random.Generator) -> np.ndarray:
    """Return smooth blobs, float32 [count, channels, size, size] in [0, 1]."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"))
    centres = random.uniform(0.25, 0.75, (count, channels, 2, 2)) * size
    squared = ((grid[None, None, None] - centres[..., None, None]) ** 2).sum(axis=3)
    return np.exp(-squared / (size / 5) ** 2).sum(axis=2).clip(0, 1).astype(np.float32)


def plan(attacks: dict, budgets: dict, failing: str | None) -> list[dict]:
    """Return the cells as in run.json; those whose "threat route attack" is `failing` have failed."""
    cells = []
    for norm, eps_list in budgets.items():
        for eps in eps_list:
            for attack in attacks:
                attempts = [("gray_box", "none", "exact", list(DEFENCES))]
                for name, (_, has_purifier, _, _) in DEFENCES.items():
                    attempts += [
                        ("white_box", name, route, [name]) for route in ("exact", "identity")[: 1 + has_purifier]
                    ]
                for threat, source, route, judges in attempts:
                    failed = f"{threat} {route} {attack}" == failing
                    cells.append(
                        {
                            "crafted": f"{len(cells):064x}",
                            "threat": threat,
                            "source": source,
                            "route": route,
                            "attack": attack,
                            "options": {"steps": 1 if attack == "fgsm" else 40, "step_size": eps / 10},
                            "norm": norm,
                            "budget": eps,
                            "judges": judges,
                            "status": "failed" if failed else "done",
                            "reason": "out of memory" if failed else None,
                        }
                    )
    return cells


def make(
    folder: Path,
    images: int = 120,
    kept: int = 8,
    size: int = 16,
    channels: int = 1,
    classes: list[str] | None = None,
    notes: list[str] | None = None,
    attacks: dict | None = None,
    budgets: dict | None = None,
    failing: str | None = "white_box identity bim",
    seed: int = 0,
) -> Path:
    """Write run.json, rows, table, measures, curves and samples into `folder`, as an evaluation does; return it."""
    random = np.random.default_rng(seed)
    classes = classes or [str(digit) for digit in range(10)]
    attacks, budgets = attacks or STRENGTH, budgets or BUDGETS
    cells = plan(attacks, budgets, failing)
    labels = random.integers(0, len(classes), images)
    hardness = random.uniform(0, 1, images)  # the same for all defences
    keep = np.sort(random.choice(images, kept, replace=False))
    clean = pictures(kept, size, channels, random)
    samples = {"image": keep.astype(np.int64), "clean": clean}
    columns: dict[str, list] = {name: [] for name in ROW_SCHEMA.names}

    def judged(cell: dict, defence: str, halving: float) -> None:
        """Append a row per image, correct if its hardness exceeds the effective radius."""
        eps = cell["budget"] * (L2_IN_LINF if cell["norm"] == "l2" else 1)
        strength = attacks.get(cell["attack"], 0.0)
        right = (hardness**2 * 4 * halving / 255 > eps * strength) & (hardness > 0.015)
        prediction = np.where(right, labels, (labels + 1 + (hardness * 7).astype(int)) % len(classes))
        right = prediction == labels
        linf = eps if cell["norm"] != "l2" else eps * 2
        values = {
            "crafted": cell["crafted"],
            "judge": fingerprint(defence),
            "defence": defence,
            **{name: cell[name] for name in ("threat", "source", "route", "attack", "norm", "budget")},
            "image": np.arange(images),
            "label": labels,
            "prediction": prediction,
            "correct": right,
            "confidence": 0.5 + hardness / 2,
            "margin": np.where(right, 1.0, -1.0),
            "linf": linf,
            "l2": linf * size * 0.9,
            "l1": linf * size * size * 0.8,
            "l2_normalised": linf * 2,
            "l2_standardised": linf * 2.2,
            "psnr": 21.0,
            "ssim": 0.87,
            "target": -1,
            "seed": -1,
            "purified_pixel": 1.0,
            "purified_signal": 0.5,
            "forwards": cell["options"].get("steps", 0),
            "backwards": cell["options"].get("steps", 0),
        }
        for name in columns:
            columns[name].append(np.broadcast_to(values[name], images))

    nothing = dict.fromkeys(("crafted", "route", "attack", "norm", "source"), "")
    untouched = {**nothing, "threat": CLEAN, "budget": 0.0, "options": {}}
    for name, (_, has_purifier, gray, _) in DEFENCES.items():
        judged(untouched, name, gray)
        if has_purifier:
            samples[f"purified/clean/{fingerprint(name)}"] = (clean * 0.9 + 0.02).astype(np.float32)
    for cell in cells:
        if cell["status"] == "failed":
            continue
        sign = random.choice([-1.0, 1.0], clean.shape)
        eps = cell["budget"] if cell["norm"] == "linf" else cell["budget"] / np.sqrt(clean[0].size)
        adversarial = (clean + sign * eps).clip(0, 1).astype(np.float32)
        samples[f"adversarial/{cell['crafted']}"] = adversarial
        for name in cell["judges"]:
            _, has_purifier, gray, known = DEFENCES[name]
            judged(
                cell,
                name,
                gray if cell["threat"] == "gray_box" else known * (1.5 if cell["route"] == "identity" else 1),
            )
            if has_purifier:  # slightly outside [0, 1], as for real purifiers
                purified = 0.95 * adversarial + 0.05 * sign
                samples[f"purified/{cell['crafted']}/{fingerprint(name)}"] = purified.astype(np.float32)

    arrays = [pa.array(np.concatenate(columns[field.name]), field.type) for field in ROW_SCHEMA]
    rows = pa.Table.from_arrays(arrays, schema=ROW_SCHEMA).sort_by([(name, "ascending") for name in SORT_ORDER])
    run = {
        "schema": SCHEMA_VERSION,
        "name": "digits",
        "command": "python evaluate.py",
        "data": {
            "name": "digits",
            "split": "test",
            "images": images,
            "size": size,
            "channels": channels,
            "fingerprint": fingerprint("digits"),
        },
        "classes": classes,
        "seed": seed,
        "defences": [
            {
                "name": name,
                "title": title,
                "about": f"{title}, generated for a test of the report.",
                "weights": [f"runs/digits/{name}/weights.safetensors"],
                "judge": fingerprint(name),
                "has_purifier": has_purifier,
            }
            for name, (title, has_purifier, _, _) in DEFENCES.items()
        ],
        "cells": cells,
        "notes": notes if notes is not None else ["The S2SNet was tuned to another classifier."],
        "versions": {"s2snet": "0.1.0", "torch": "2.13.0"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run, indent=1), encoding="utf-8")
    pq.write_table(rows, folder / "rows.parquet")
    scores = Scores(rows, cells, budgets)
    write_table(scores.table(), folder / "table.csv")
    measures.write(measures.measures(scores, rows, classes), MEASURE_COLUMNS, folder / "measures.csv")
    measures.write(measures.curves(scores, rows), CURVE_COLUMNS, folder / "curves.csv")
    save_file(samples, folder / "samples.safetensors")
    return folder
