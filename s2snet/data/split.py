"""Split image files into training, validation and test images. Not random; published test sets are kept whole."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from s2snet.data.image_files import ImageFiles
from s2snet.data.images import Splits

PARTS = ("train", "validation", "test")


class LabelledFile(NamedTuple):
    """An image file: its name relative to the root, its class, and its part if the data set defines one."""

    name: str
    label: int
    part: str | None = None


class Transform(NamedTuple):
    """The size, resizing and channels that turn files into images of one shape, and the data's statistics."""

    size: int
    resize: int
    channels: int
    mean: Sequence[float]
    std: Sequence[float]


def transform(size: int, resize: int | None, channels: int, mean: Sequence[float], std: Sequence[float]) -> Transform:
    """Return a validated Transform. `resize` None keeps the usual proportion: 256 for 224, 342 for 299."""
    if channels not in (1, 3):
        raise ValueError(f"data.channels={channels}: expected 1 or 3")
    if size < 1:
        raise ValueError(f"data.size={size}: at least 1")
    resize = round(size * 256 / 224) if resize is None else resize
    if not isinstance(resize, int) or resize < size:
        raise ValueError(f"data.resize={resize}: expected an integer of at least data.size={size}")
    return Transform(size, resize, channels, mean, std)


def folder(root: str | None, data_root: str | Path | None) -> Path:
    """Return the existing folder named by data.root: absolute, or relative to data_root or the working directory."""
    if not root:
        raise ValueError("data.root=null: name the folder with the images, absolute or below data_root (S2SNET_DATA)")
    path = Path(data_root or "") / Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"data.root={root}: no folder {path}; give it absolute or below data_root (S2SNET_DATA)")
    return path


def split_files(
    root: Path, files: list[LabelledFile], classes: list[str], shape: Transform, test_every: int, validation_every: int
) -> Splits:
    """Split files into training, validation and test images.

    With the files ordered by class and name, every `test_every`-th file without a part is a test image. If no file has
    the part `validation`, every `validation_every`-th training image validates. The classes alternate in the data set's
    own order, which `index` counts, so that its first images are of all classes.
    """
    for name, every in (("test_every", test_every), ("validation_every", validation_every)):
        if every < 1:
            raise ValueError(f"data.{name}={every}: at least 1")
    files = sorted(files, key=lambda file: (file.label, file.name))
    parts = [file.part for file in files]
    has_validation = "validation" in parts
    unassigned = [place for place, part in enumerate(parts) if part is None]
    for count, place in enumerate(unassigned):
        parts[place] = "train" if count % test_every else "test"
    if not has_validation:
        for place in [place for place, part in enumerate(parts) if part == "train"][::validation_every]:
            parts[place] = "validation"
    if "test" not in parts:
        raise ValueError(f"no image below {root} is of the part test")
    seen: Counter[int] = Counter()
    turns = []  # (number within its class, class) of each file
    for file in files:
        turns.append((seen[file.label], file.label))
        seen[file.label] += 1
    order = sorted(range(len(files)), key=turns.__getitem__)

    def images(part: str) -> ImageFiles:
        index = [k for k, place in enumerate(order) if parts[place] == part]
        chosen = [files[order[k]] for k in index]
        labels = torch.tensor([file.label for file in chosen], dtype=torch.int64)
        names = [file.name for file in chosen]
        return ImageFiles(root, names, labels, torch.tensor(index, dtype=torch.int64), classes, *shape)

    return Splits(*(images(part) for part in PARTS))
