"""Define data sets: images in [0, 1] with labels and indices, and their training, validation and test splits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset


class Images(Dataset):
    """Images in memory, float32 in [0, 1] or uint8: item k is (image float32 [C, H, W], label int, index int).

    `index` is the image's position in the whole data set, so it identifies the image in every split. `mean` and `std`
    are per channel, for networks that normalise and for normalised distances.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        classes: list[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        self.images, self.labels, self.index, self.classes = images, labels, index, classes
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Tensor, int, int]:
        image = self.images[place]
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        return image, int(self.labels[place]), int(self.index[place])

    def only(self, places: Sequence[int]) -> "Images":
        """Return the subset at these positions; each image keeps its index."""
        chosen = torch.as_tensor(places, dtype=torch.int64)
        return Images(self.images[chosen], self.labels[chosen], self.index[chosen], self.classes, self.mean, self.std)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of pixels, labels and indices."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        for tensor in (self.images, self.labels, self.index):
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class Streamed(Dataset):
    """A map-style data set of (image, label, ...) with the interface of Images: item k is (image, label, k).

    Items are read on demand and not kept. `classes` default to the names in `source.classes`; without these, the
    labels are counted, which reads every item once.
    """

    def __init__(self, source: Dataset, classes: list[str] | None = None):
        self.source = source
        self.mean = self.std = None
        names = classes or getattr(source, "classes", None)
        self.classes = list(names) if names else [str(number) for number in range(self._largest_label() + 1)]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: int) -> tuple[Tensor, int, int]:
        image, label = self.source[place][:2]
        return image, int(label), place

    def only(self, places: Sequence[int]) -> "Streamed":
        """Return the subset at these positions, renumbered from 0."""
        return Streamed(Subset(self.source, list(places)), self.classes)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of shapes, pixels and labels, in order. Reads every image once."""
        digest = hashlib.sha256()
        for place in range(len(self)):
            image, label, _ = self[place]
            digest.update(f"{tuple(image.shape)} {image.dtype} {label}".encode())
            digest.update(image.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _largest_label(self) -> int:
        return max(self[place][1] for place in range(len(self)))


@dataclass
class Splits:
    """The three parts of a data set. The test part is never used for training or for choosing anything."""

    train: Images
    validation: Images
    test: Images

    @property
    def labelled(self) -> bool:
        """True if every test image has a label."""
        return bool((self.test.labels >= 0).all())

    def facts(self) -> dict[str, Any]:
        """Return what weights files record of the data: sizes, classes and the training images' fingerprint."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "classes": self.test.classes,
            "train_fingerprint": self.train.fingerprint(),
        }


def split_validation(images: Any, validation_every: int = 10) -> Splits:
    """Split off every `validation_every`-th image for validation; the test part is empty. Not random."""
    count = len(images)
    if validation_every < 2 or count < 2:
        raise ValueError(f"validation_every={validation_every} of {count} images: both must be at least 2")
    held_out = range(0, count, validation_every)
    rest = [place for place in range(count) if place % validation_every]
    return Splits(images.only(rest), images.only(held_out), images.only([]))
