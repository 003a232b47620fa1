"""Which image file trains, validates or tests, and in which order. No random part; published test sets stay whole."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from s2snet.data.files import ImageFiles
from s2snet.data.images import Splits

PARTS = ("train", "validation", "test")


class Found(NamedTuple):
    """An image file: its name relative to the root, its class, and its part where the data set says so."""

    name: str
    label: int
    part: str | None = None


class Transform(NamedTuple):
    """How files become images of one shape (ImageFiles), and the data's statistics."""

    size: int
    resize: int
    channels: int
    mean: Sequence[float]
    std: Sequence[float]


def transform(size: int, resize: int | None, channels: int, mean: Sequence[float], std: Sequence[float]) -> Transform:
    """Checked; `resize` null keeps the usual proportion: 256 for 224, 342 for 299."""
    if channels not in (1, 3):
        raise ValueError(f"data.channels={channels}: image files are read in 1 or 3 channels")
    if size < 1:
        raise ValueError(f"data.size={size}: at least 1")
    resize = round(size * 256 / 224) if resize is None else resize
    if not isinstance(resize, int) or resize < size:
        raise ValueError(f"data.resize={resize}: a number of pixels, at least data.size={size}")
    return Transform(size, resize, channels, mean, std)


def folder(root: str | None, data_root: str | Path | None) -> Path:
    """The folder that data.root names: absolute, or below data_root, or, without one, below the working folder."""
    if not root:
        raise ValueError("data.root=null: name the folder with the images, absolute or below data_root (S2SNET_DATA)")
    path = Path(data_root or "") / Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"data.root={root}: no folder {path}; give it absolute or below data_root (S2SNET_DATA)")
    return path


def carve(
    root: Path, found: list[Found], classes: list[str], shape: Transform, test_every: int, validation_every: int
) -> Splits:
    """The three parts. With the files ordered by class and name, every `test_every`-th of those without a part tests;
    where no file is of the part `validation`, every `validation_every`-th that would train validates.

    In the data set's own order, which `index` counts, the classes take turns, so that the first images are of all.
    """
    for name, every in (("test_every", test_every), ("validation_every", validation_every)):
        if every < 1:
            raise ValueError(f"data.{name}={every}: at least 1")
    found = sorted(found, key=lambda file: (file.label, file.name))
    turns: Counter[int] = Counter()
    places: Counter[str] = Counter()
    given = any(file.part == "validation" for file in found)
    files = []
    for name, label, part in found:
        if part is None:
            part = "test" if places["carved"] % test_every == 0 else "train"
            places["carved"] += 1
        if part == "train" and not given:
            part = "validation" if places["train"] % validation_every == 0 else "train"
            places["train"] += 1
        files.append((turns[label], label, name, part))
        turns[label] += 1
    files.sort()
    if not any(file[3] == "test" for file in files):
        raise ValueError(f"no image below {root} is of the part test")
    parts = []
    for wanted in PARTS:
        index = [place for place, file in enumerate(files) if file[3] == wanted]
        names, labels = [files[place][2] for place in index], [files[place][1] for place in index]
        kind = torch.int64
        parts.append(
            ImageFiles(root, names, torch.tensor(labels, dtype=kind), torch.tensor(index, dtype=kind), classes, *shape)
        )
    return Splits(*parts)
