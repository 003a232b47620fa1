"""Data sets of image files that are read when they are asked for: what lies below a folder, and one split of it."""

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

from s2snet.data.decode import MOST_PIXELS, Damaged, decode, one_line, picture

ENDINGS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
UNLABELLED = -1
AT_ONCE = min(16, os.cpu_count() or 1)  # files read in parallel where many are checked

Item = TypeVar("Item")


class ImageFiles(Dataset):
    """Image files below `root`: item k is (float32 [channels, size, size] in [0, 1], label int, index int).

    The shorter side is resized to `resize` and the middle size x size taken: bilinear and antialiased, in eight bits
    by Pillow, as torchvision's classification presets do with a PIL image and as published accuracies were measured.
    A file that is no whole image raises Damaged. Labels are UNLABELLED where there are none. `index`, `classes`,
    `mean` and `std` are what they are for Images.
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
        # One run of bytes: a list of strings would be copied into every worker, by the counting of references.
        encoded = [os.fsencode(name) for name in names]
        self._names, self._ends = b"".join(encoded), np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int, int]:
        path = self.path(place)
        image = middle(picture(path, self.channels), self.resize, self.size, str(path))
        return image.float() / 255, *self._facts(place)

    def whole(self, place: int) -> tuple[Tensor, int, int]:
        """The item with the file's own pixels, uint8 [channels, H, W], for augmentation to crop from."""
        return decode(self.path(place), self.channels), *self._facts(place)

    def path(self, place: int) -> Path:
        place = range(len(self))[place]
        return self.root / os.fsdecode(self._names[self._ends[place] : self._ends[place + 1]])

    def only(self, places: Sequence[int]) -> "ImageFiles":
        """The data set of these places alone; each image keeps its index."""
        names = [str(self.path(place).relative_to(self.root)) for place in places]
        chosen = torch.as_tensor(places, dtype=torch.int64)
        transform = (self.classes, self.size, self.resize, self.channels, self.mean, self.std)
        return ImageFiles(self.root, names, self.labels[chosen], self.index[chosen], *transform)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the files' bytes, names, labels and indices and the transform. Decodes nothing."""
        digest = hashlib.sha256(f"{self.resize} {self.size} {self.channels}".encode())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for place, content in enumerate(pool.map(self._digest, range(len(self)))):
                digest.update(repr((self._facts(place), os.fsencode(self.path(place).relative_to(self.root)))).encode())
                digest.update(content)
        return digest.hexdigest()

    def _digest(self, place: int) -> bytes:
        try:
            with open(self.path(place), "rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:  # reading the image will say so
            return b""

    def _facts(self, place: int) -> tuple[int, int]:
        return int(self.labels[place]), int(self.index[place])


def middle(image: Image.Image, resize: int, size: int, name: str) -> Tensor:
    """The middle size x size of the picture with its shorter side made `resize`, as uint8 [C, size, size].

    Damaged for one so narrow that it would grow beyond MOST_PIXELS: a bomb that goes off in resizing.
    """
    refuse_narrow(image, resize, name)
    functional = _functional()
    return functional.pil_to_tensor(functional.center_crop(functional.resize(image, [resize], antialias=True), [size]))


def refuse_narrow(image: Image.Image, resize: int, name: str) -> None:
    """Damaged where the picture would have more than MOST_PIXELS with its shorter side made `resize`."""
    short, long = sorted(image.size)
    if long * resize**2 > short * MOST_PIXELS:
        raise Damaged(
            f"{one_line(name)}: {image.width} x {image.height} pixels; too long to make the shorter side {resize}"
        )


def damaged(images: Any, places: Sequence[int]) -> dict[int, str]:
    """{place: `PATH: reason`} of the places whose file is no whole image. Reads them all, several at once.

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

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {place: said for place, said in zip(places, pool.map(reason, places), strict=True) if said}


def readable(read: Callable[[int], Item], place: int, count: int, note: Callable[[str], None] = str) -> Item:
    """`read(place)`, or, where that file is damaged, what the next of the `count` places gives; `note` is told.

    So who comes in for a damaged image follows from its place alone.
    """
    for step in range(count):
        try:
            return read((place + step) % count)
        except Damaged as error:
            note(str(error))
            last = error
    raise ValueError(f"none of the {count} images can be read; the last: {last}")


def image_files(folder: Path) -> Iterator[str]:
    """The names, relative to the folder, of the image files anywhere below it.

    What an image file is, its ending says; hidden files and folders are passed over. Links are followed, as data are
    often linked to from elsewhere, but not back into a folder that they lie in.
    """

    def below(path: str, prefix: str, parents: frozenset) -> Iterator[str]:
        this = os.stat(path)
        key = (this.st_dev, this.st_ino)
        if key in parents:
            return
        with os.scandir(path) as items:
            there = sorted(items, key=lambda item: item.name)
        for item in there:
            if item.name.startswith("."):
                continue
            if item.is_dir():
                yield from below(item.path, f"{prefix}{item.name}/", parents | {key})
            elif os.path.splitext(item.name)[1].lower() in ENDINGS:
                yield prefix + item.name

    return below(str(folder), "", frozenset())


@functools.cache
def _functional():
    """torchvision's functions on images; imported with the first image, which takes seconds."""
    from s2snet import torchvision_cpu

    torchvision_cpu.mend()
    from torchvision.transforms.v2 import functional

    return functional
