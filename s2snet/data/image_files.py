"""List the image files below a folder, and read them on demand as a data set."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from s2snet.data.decode import MAX_PIXELS, Damaged, decode, one_line, picture

EXTENSIONS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
UNLABELLED = -1
READERS = min(16, os.cpu_count() or 1)  # threads that check or hash many files

Item = TypeVar("Item")


class ImageFiles(Dataset):
    """Image files below `root`: item k is (float32 [channels, size, size] in [0, 1], label int, index int).

    The shorter side is resized to `resize` and the central size x size is cropped: bilinear and antialiased, in eight
    bits by Pillow, as in torchvision's classification presets, with which published accuracies were measured. Reading
    a file that is not a complete image raises Damaged. Missing labels are UNLABELLED. `index`, `classes`, `mean` and
    `std` are as in Images.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: Tensor,
        index: Tensor,
        classes: list[str],
        size: int,
        resize: int,
        channels: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        self.root, self.labels, self.index, self.classes = root, labels, index, classes
        self.size, self.resize, self.channels, self.mean, self.std = size, resize, channels, mean, std
        # One bytes object: reference counting would copy a list of strings into every worker process.
        encoded = [os.fsencode(name) for name in names]
        self._names, self._ends = b"".join(encoded), np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int, int]:
        path = self.path(place)
        image = middle(picture(path, self.channels), self.resize, self.size, str(path))
        return image.float() / 255, *self._facts(place)

    def whole(self, place: int) -> tuple[Tensor, int, int]:
        """Return the item at the file's own size, uint8 [channels, H, W], for augmentation to crop from."""
        return decode(self.path(place), self.channels), *self._facts(place)

    def path(self, place: int) -> Path:
        place = range(len(self))[place]
        return self.root / os.fsdecode(self._names[self._ends[place] : self._ends[place + 1]])

    def only(self, places: Sequence[int]) -> "ImageFiles":
        """Return the subset at these positions; each image keeps its index."""
        names = [str(self.path(place).relative_to(self.root)) for place in places]
        chosen = torch.as_tensor(places, dtype=torch.int64)
        transform = (self.classes, self.size, self.resize, self.channels, self.mean, self.std)
        return ImageFiles(self.root, names, self.labels[chosen], self.index[chosen], *transform)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the files' bytes, names, labels, indices and transform, without decoding."""
        digest = hashlib.sha256(f"{self.resize} {self.size} {self.channels}".encode())
        with ThreadPoolExecutor(READERS) as pool:
            for place, content in enumerate(pool.map(self._digest, range(len(self)))):
                digest.update(repr((self._facts(place), os.fsencode(self.path(place).relative_to(self.root)))).encode())
                digest.update(content)
        return digest.hexdigest()

    def _digest(self, place: int) -> bytes:
        try:
            with open(self.path(place), "rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:  # reported when the image is read
            return b""

    def _facts(self, place: int) -> tuple[int, int]:
        return int(self.labels[place]), int(self.index[place])


def middle(image: Image.Image, resize: int, size: int, name: str) -> Tensor:
    """Resize the shorter side to `resize` and return the central crop, uint8 [C, size, size].

    Raises Damaged if the image is so narrow that resizing would exceed MAX_PIXELS.
    """
    refuse_narrow(image, resize, name)
    functional = _functional()
    return functional.pil_to_tensor(functional.center_crop(functional.resize(image, [resize], antialias=True), [size]))


def refuse_narrow(image: Image.Image, resize: int, name: str) -> None:
    """Raise Damaged if resizing the shorter side to `resize` would exceed MAX_PIXELS."""
    short, long = sorted(image.size)
    if long * resize**2 > short * MAX_PIXELS:
        pixels = f"{image.width} x {image.height} pixels"
        raise Damaged(f"{one_line(name)}: {pixels}, too narrow to resize the shorter side to {resize}")


def find_damaged(images: Any, places: Sequence[int]) -> dict[int, str]:
    """Return {position: `PATH: reason`} of the damaged files at these positions. Reads all of them, in parallel.

    Empty for data in memory.
    """
    if not isinstance(images, ImageFiles):
        return {}

    def reason(place: int) -> str | None:
        try:
            images[place]
        except Damaged as error:
            return str(error)
        return None

    with ThreadPoolExecutor(READERS) as pool:
        reasons = zip(places, pool.map(reason, places), strict=True)
        return {place: text for place, text in reasons if text}


def first_readable(read: Callable[[int], Item], place: int, count: int, note: Callable[[str], None] = str) -> Item:
    """Return `read(place)`, or that of the next of `count` positions if the file is damaged; `note` gets the reason.

    The replacement of a damaged image thus depends only on its position.
    """
    for step in range(count):
        try:
            return read((place + step) % count)
        except Damaged as error:
            note(str(error))
            last = error
    raise ValueError(f"none of the {count} images can be read; the last: {last}")


def image_files(folder: Path) -> Iterator[str]:
    """Yield the names, relative to the folder, of all image files below it, sorted within each folder.

    Image files are recognised by their extension; hidden files and folders are skipped. Links are followed, except
    back into a folder that contains them.
    """

    def below(path: str, prefix: str, parents: frozenset) -> Iterator[str]:
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        if key in parents:
            return
        with os.scandir(path) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from below(entry.path, f"{prefix}{entry.name}/", parents | {key})
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                yield prefix + entry.name

    return below(str(folder), "", frozenset())


@functools.cache
def _functional():
    """Return torchvision's image functions, imported on first use because that takes seconds."""
    from s2snet import torchvision_cpu

    torchvision_cpu.patch()
    from torchvision.transforms.v2 import functional

    return functional
