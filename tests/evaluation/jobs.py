"""Evaluate tiny networks, from Python objects to a result folder: no weights files and no command line."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.audit.probes.measure import measure
from s2snet.config.evaluation import Threat, evaluation_of
from s2snet.config.runtime import Trainer
from s2snet.data import Images
from s2snet.evaluation.job import Job
from s2snet.evaluation.run import run
from s2snet.evaluation.scores import read_table
from s2snet.models import Defended
from s2snet.store import weights
from s2snet.store.defences import Defence

SIDE, CLASSES = 12, 4
ROUTE_OPTIONS = {"temperature": 0.3, "fit_steps": 5, "smoothing": 0.05, "draws": 2}


class Linear(nn.Module):
    """A linear classifier; every class is close to every image."""

    def __init__(self, seed: int = 0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(CLASSES, SIDE * SIDE, generator=draw) / SIDE)

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight.T


class Blur(nn.Module):
    """A purifier: the mean over 3 x 3 pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, 3, 1, 1)


class Noisy(nn.Module):
    """A purifier that answers at random."""

    def forward(self, images: Tensor) -> Tensor:
        return images + 0.05 * torch.randn_like(images)


def pictures(count: int = 20, seed: int = 0, first: int = 100) -> Images:
    """Random smooth images that Linear() gets right, but for the last two; their indices begin at `first`."""
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    images = functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    with torch.no_grad():
        labels = Linear()(images).argmax(dim=1)
    labels[-2:] = (labels[-2:] + 1) % CLASSES
    return Images(images, labels, torch.arange(count) + first, [str(k) for k in range(CLASSES)], (0.5,), (0.25,))


def defence(name: str, purifier: nn.Module | None = None, classifier: nn.Module | None = None) -> Defence:
    module = Defended(purifier, classifier or Linear()).eval()
    return Defence(name, name, module, [], weights.fingerprint(module), "made up")


def white_box(*routes: str, **options) -> dict[str, Threat]:
    return {"white_box": Threat("white_box", list(routes or ["exact"]), **(ROUTE_OPTIONS | options))}


def gray_box() -> dict[str, Threat]:
    return {"gray_box": Threat("gray_box", [], **ROUTE_OPTIONS)}


def evaluated(output: str | Path = "r", **changed) -> tuple[Path, list[str]]:
    """Run a job, by default PGD on two defences; return the result folder and the messages."""
    messages: list[str] = []
    return run(job(output, **changed), messages.append, measure), messages


def job(output: str | Path = "r", **changed) -> Job:
    """Return a job that takes a fraction of a second; `changed` are fields of Job and options of Evaluation.

    `attacks` are {label: options}, `threats` {label: Threat}, and `count` is the number of images.
    """
    options = {
        "attacks": {"pgd": {"steps": 3}},
        "threats": gray_box() | white_box(),
        "budgets": {"linf": [0.05]},
        "chunk": 8,
        "samples": 3,
        "audit": "off",
        "trainer": Trainer(progress=False),
    } | changed
    objects = {
        "name": "pictures",
        "images": pictures(),
        "train": pictures(40, seed=1),
        "defences": [defence("none"), defence("blur", Blur())],
        "notes": [],
    }
    objects |= {key: options.pop(key) for key in objects if key in options}
    renamed = {"count": "images", "seeds": "seed"}
    options = {renamed.get(key, key): value for key, value in options.items()}
    threats = {label: vars(threat) for label, threat in options.pop("threats").items()}
    return Job(evaluation_of(options.pop("attacks"), threats, **options), output=Path(output), **objects)


def rows(folder: Path, **wanted) -> list[dict]:
    """The rows with these values."""
    found = pq.read_table(folder / "rows.parquet", filters=[(key, "=", value) for key, value in wanted.items()] or None)
    return found.to_pylist()


def lines(folder: Path, **wanted) -> list[dict]:
    """The lines of the table with these values."""
    return [line for line in read_table(folder / "table.csv") if all(line[key] == wanted[key] for key in wanted)]


def line(folder: Path, **wanted) -> dict:
    (found,) = lines(folder, **wanted)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Return the files with an evaluation's results, which are the same for equal runs."""
    names = ("rows.parquet", "table.csv", "measures.csv", "curves.csv", "samples.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def timing(folder: Path, kind: str = "crafted") -> list[dict]:
    """The lines of timing.jsonl of this kind."""
    found = map(json.loads, (folder / "timing.jsonl").read_text().splitlines())
    return [entry for entry in found if kind in entry]


def crafted(folder: Path) -> list[tuple[str, int]]:
    """Return the crafted chunks of all runs in this folder."""
    return [(entry["crafted"], entry["chunk"]) for entry in timing(folder)]
