"""Compare the strength of attacks across libraries at the same radius, steps, step size, loss and restarts.

    python benchmarks/strength.py LIBRARY [MODEL[:ATTACK] ...]
    python benchmarks/strength.py table
    python benchmarks/strength.py clean

The first measures one library of peers.py (each may need a separate environment) on the given models, or on all,
and adds its rows to docs/results/benchmarks/strength-LIBRARY.csv; existing rows are not measured again. The second
joins them into strength.csv: ours compared with the best of the others. The third prints the clean accuracy of the
models on all test images. Uses one thread.

All adversarial images are judged in the same way: in float32, by a copy of the model that no attack has touched.
"""

import copy
import csv
import os
import pickle
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from peers import LACKS, LIBRARIES
from torch import Tensor, nn

import s2snet
from s2snet import data
from s2snet.attacks.balls import Ball, distance
from s2snet.attacks.losses import fooled
from s2snet.models import Defended
from s2snet.store import paths
from s2snet.store.weights import load_published

FOLDER = Path("docs/results/benchmarks")
BATCH = 60  # images at a time, for every library
TARGET_CLASSES = 3  # of apgd-t
# Radii at which the accuracy of a model is neither 0 nor 1: for bim and pgd, and (MAIN) for Auto-PGD and further seeds.
RADII = {
    "digits": {"linf": (2 / 255, 4 / 255), "l2": (0.1, 0.25), "l1": (2.0,)},
    "digits-s2snet": {"linf": (8 / 255, 16 / 255, 25.5 / 255), "l2": (0.5, 1.0), "l1": (8.0,)},
    "cifar10-resnet20": {"linf": (1 / 255,), "l2": (0.1,), "l1": (1.0,)},
}
MAIN = {
    "digits": {"linf": 4 / 255, "l2": 0.25, "l1": 2.0},
    "digits-s2snet": {"linf": 16 / 255, "l2": 1.0, "l1": 8.0},
    "cifar10-resnet20": {"linf": 1 / 255, "l2": 0.1, "l1": 1.0},
}
SEEDS = 3  # for attacks with a random start; their means are compared
# Cases in which the difference after three seeds was about as large as the spread, for both libraries.
MORE_SEEDS = {("cifar10-resnet20", "apgd-dlr", "l2"): 9}
# number of test images, from the first
BUDGET_IMAGES = {"digits": 360, "digits-s2snet": 360, "cifar10-resnet20": 500}
MINIMAL_IMAGES = {"digits": 360, "digits-s2snet": 360, "cifar10-resnet20": 100}
FEW_IMAGES = 32  # for CW, in addition: one library (ART) is too slow for more
BUDGET = ("fgsm", "bim", "mim", "pgd", "apgd-ce", "apgd-dlr", "apgd-t")
MINIMAL = (("deepfool", "l2"), ("deepfool", "linf"), ("ddn", "l2"), ("fmn", "l2"), ("fmn", "linf"), ("cw", "l2"))
KEY = ("model", "attack", "norm", "eps", "seed", "images")


def digits(defended: bool) -> tuple[nn.Module, Tensor, Tensor]:
    folder = paths.released() / "digits"
    model = s2snet.load(folder / "classifier-small_cnn.safetensors")
    if defended:
        model = Defended(s2snet.load(folder / "s2snet-segnet_small-small_cnn.safetensors"), model)
    test = data.load("digits").test
    return model, test.images, test.labels


def cifar10() -> tuple[nn.Module, Tensor, Tensor] | None:
    """Return the ResNet-20 with public weights and the 10,000 test images; None if S2SNET_DATA lacks them."""
    root = Path(os.environ.get("S2SNET_DATA", "data"))
    weights, batch = root / "weights/resnet20-12fca82f.th", root / "cifar-10-batches-py/test_batch"
    if not weights.is_file() or not batch.is_file():
        print(f"cifar10-resnet20 left out: S2SNET_DATA has no {weights.relative_to(root)} or {batch.relative_to(root)}")
        return None
    model = load_published(weights, name="resnet20", channels=3)
    with open(batch, "rb") as file:
        stored = pickle.load(file, encoding="bytes")
    images = torch.from_numpy(stored[b"data"]).view(-1, 3, 32, 32).float() / 255
    return model, images, torch.tensor(stored[b"labels"])


MODELS = {
    "digits": lambda: digits(defended=False),
    "digits-s2snet": lambda: digits(defended=True),
    "cifar10-resnet20": cifar10,
}


def cases(library: str, model: str) -> Iterator[dict[str, object]]:
    """Yield attack, norm, eps (None for minimal attacks), seed, images and options; quick ones first."""
    known = {
        (attack, norm)
        for attack in LIBRARIES[library](nn.Identity().eval())
        for norm in ("linf", "l2", "l1")
        if (library, attack, norm) not in LACKS and (norm != "l1" or attack == "pgd")
    }
    random = {"pgd", "apgd-ce", "apgd-dlr"}  # the others start from the clean image
    for seed, attack, norm in product(range(max(SEEDS, *MORE_SEEDS.values())), BUDGET, ("linf", "l2", "l1")):
        if seed >= MORE_SEEDS.get((model, attack, norm), SEEDS):
            continue
        radii = RADII[model][norm]
        if attack.startswith("apgd") or (seed and model != "digits"):
            radii = (MAIN[model][norm],)
        if seed and (model, norm) == ("digits-s2snet", "linf"):
            radii += (25.5 / 255,)  # here the random start decides about the few images left
        if (attack, norm) in known and (not seed or attack in random):
            options = {"target_classes": TARGET_CLASSES} if attack == "apgd-t" else {}
            for eps in radii:
                yield _case(attack, norm, eps, seed, BUDGET_IMAGES[model], options)
    for attack, norm in MINIMAL:
        if (attack, norm) in known:
            few = (FEW_IMAGES,) if attack == "cw" else ()
            for images in few if few and library == "art" else (*few, MINIMAL_IMAGES[model]):
                yield _case(attack, norm, None, 0, images, {})


def _case(attack: str, norm: str, eps: float | None, seed: int, images: int, options: dict) -> dict[str, object]:
    return {"attack": attack, "norm": norm, "eps": eps, "seed": seed, "images": images, "options": options}


def measure(library: str, wanted: list[str]) -> None:
    torch.set_num_threads(1)
    path = FOLDER / f"strength-{library}.csv"
    done = {tuple(row[name] for name in KEY) for row in read(path)}
    for name in MODELS:
        chosen = [word.partition(":")[2] for word in wanted if word.partition(":")[0] == name]
        loaded = MODELS[name]() if chosen or not wanted else None
        if loaded is None:
            continue
        judge, images, labels = loaded
        judge = judge.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        for case in cases(library, name):
            if chosen and "" not in chosen and case["attack"] not in chosen:
                continue
            row = {"model": name, **{key: case[key] for key in ("attack", "norm")}, "eps": _shown(case)}
            row |= {"seed": str(case["seed"]), "images": str(case["images"])}
            if tuple(row[key] for key in KEY) in done:
                continue
            row |= _measured(library, judge, images[: case["images"]], labels[: case["images"]], case)
            print(" ".join(f"{value:>12}" for value in (library, *row.values())), flush=True)
            FOLDER.mkdir(parents=True, exist_ok=True)
            new = not path.is_file()
            with open(path, "a", newline="") as file:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)


def _shown(case: dict[str, object]) -> str:
    if case["eps"] is None:
        return ""
    return f"{case['eps'] * 255:g}/255" if case["norm"] == "linf" else f"{case['eps']:g}"


def _measured(library: str, judge: nn.Module, images: Tensor, labels: Tensor, case: dict) -> dict[str, object]:
    model = copy.deepcopy(judge)
    run = LIBRARIES[library](model)[case["attack"]]
    budget = {"norm": case["norm"], **({} if case["eps"] is None else {"eps": case["eps"]}), **case["options"]}
    found, started = [], time.process_time()
    for first in range(0, len(images), BATCH):
        part = slice(first, first + BATCH)
        _seed(1000 * case["seed"] + first)
        found.append(run(images[part].clone(), labels[part].clone(), case["seed"], first, **budget).detach().float())
        model.eval()  # some leave the module in another mode
    seconds = time.process_time() - started
    found = torch.cat(found)
    left = _left(judge, found, labels)
    row = {"clean": int(_left(judge, images, labels).sum()), "left": int(left.sum())}
    length = distance(found, images, case["norm"])
    if case["eps"] is None:
        # what is wrong already is at 0, whatever was made of it; what failed, and what left the box, is infinite
        failed = left | (found.flatten(1).amin(dim=1) < 0) | (found.flatten(1).amax(dim=1) > 1)
        length = length.masked_fill(failed, torch.inf).masked_fill(~_left(judge, images, labels), 0)
        row |= {"outside": "", "left_inside": "", "median": f"{length.median():.5f}"}
    else:
        inside = Ball(images, case["eps"], case["norm"]).project(found)
        outside = (length > case["eps"]) | (found.flatten(1).amin(dim=1) < 0) | (found.flatten(1).amax(dim=1) > 1)
        row |= {"outside": int(outside.sum()), "left_inside": int(_left(judge, inside, labels).sum()), "median": ""}
    return row | {"seconds": f"{seconds:.1f}"}


def _seed(seed: int) -> None:
    import numpy

    torch.manual_seed(seed)
    numpy.random.seed(seed)


@torch.no_grad()
def _left(judge: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return bool [B]: the judge is still correct."""
    return torch.cat([~fooled(judge(x), y) for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)])


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def clean() -> None:
    torch.set_num_threads(1)
    for name, load in MODELS.items():
        loaded = load()
        if loaded is not None:
            model, images, labels = loaded
            print(f"{name}: {int(_left(model.eval(), images, labels).sum())} of {len(images)} test images correct")


def table() -> None:
    """Write strength.csv: for each problem, our result, the best of the other libraries, and all of them."""
    groups: dict[tuple, dict[str, list[dict[str, str]]]] = {}
    for library in LIBRARIES:
        for row in read(FOLDER / f"strength-{library}.csv"):
            key = tuple(row[name] for name in KEY if name != "seed")
            groups.setdefault(key, {}).setdefault(library, []).append(row)
    order = [*MODELS], [*BUDGET, *(attack for attack, _ in MINIMAL)]
    lines = []
    for key in sorted(groups, key=lambda key: (order[0].index(key[0]), order[1].index(key[1]), *key[2:])):
        found = groups[key]
        if "ours" not in found or len(found) == 1:
            continue
        minimal = not key[3]
        what = "median" if minimal else "left_inside"
        values = {name: statistics.mean(float(row[what]) for row in rows) for name, rows in found.items()}
        best = min((name for name in values if name != "ours"), key=values.get)
        ours, theirs = values["ours"], values[best]
        seeds = f"{len(found['ours'])}, {len(found[best])}"
        line = dict(zip((name for name in KEY if name != "seed"), key, strict=True))
        line |= {"seeds": seeds, "clean": found["ours"][0]["clean"], "what": what}
        line |= {"ours": _number(ours, minimal), "best_of_peers": _number(theirs, minimal), "best": best}
        line["behind"] = f"{ours / theirs if theirs else 1:.3f}x" if minimal else f"{ours - theirs:+.1f}"
        line["within_target"] = ours <= 1.02 * theirs if minimal else ours <= theirs + 2 + 1e-9
        for library in LIBRARIES:
            rows = found.get(library, [])
            line[library] = _number(values[library], minimal) if rows else ""
            # minimal attacks: images not fooled; others: images outside the ball, over all seeds
            name = "left" if minimal else "outside"
            line[f"{library}_failed_or_outside"] = sum(int(row[name]) for row in rows) if rows else ""
        lines.append(line)
    with open(FOLDER / "strength.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    for line in lines:
        print(" ".join(f"{value!s:>12}" for value in [*line.values()][:12]))


def _number(value: float, minimal: bool) -> str:
    return f"{value:.5f}" if minimal else f"{value:.1f}"


if __name__ == "__main__":
    joint = {"table": table, "clean": clean}
    if len(sys.argv) < 2 or sys.argv[1] not in (*LIBRARIES, *joint):
        sys.exit(f"expected one of {', '.join((*LIBRARIES, *joint))}\n\n{__doc__.split(chr(10) * 2)[1]}")
    if sys.argv[1] in joint:
        joint[sys.argv[1]]()
    else:
        measure(sys.argv[1], sys.argv[2:])
