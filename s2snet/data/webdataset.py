"""Load `data=webdataset`: shards to train on as a stream, the last of them held out for validation and test.

This module also rejects samples by rule. Their order, random crops and resuming are in s2snet/training/streaming.py.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageStat

from s2snet.config.choices import nearest
from s2snet.data.decode import Damaged, picture
from s2snet.data.image_files import middle, refuse_narrow
from s2snet.data.images import Images, Splits
from s2snet.data.shards import Sample, expand, samples
from s2snet.data.split import Transform, transform

# Reasons to reject a sample; the first four are found by s2snet/data/shards.py.
RULES = (
    "broken_shard", "refused", "no_image", "duplicate", "undecodable", "small", "aspect", "constant", "no_label",
)  # fmt: skip


class Rejected(ValueError):
    """Raised for a rejected sample; `rule` is one of RULES, the message is `NAME: reason`."""

    def __init__(self, rule: str, text: str):
        super().__init__(text)
        self.rule = rule


@dataclass(frozen=True)
class Reject:
    """Limits that images must satisfy; None switches a rule off. The defaults are not tuned."""

    least_side: int | None = 32
    most_aspect: float | None = 4
    least_std: float | None = 0.0078
    duplicates: bool | None = True


class Shards:
    """Tar shards to train on: yields the samples of a shard and decodes their images. Holds no images.

    `epoch_images` is the length: the number of images that count as an epoch. If `labelled`, samples without a label
    below `len(classes)` are rejected.
    """

    labelled = False

    def __init__(
        self,
        names: list[str],
        reject: Reject,
        shape: Transform,
        shuffle: int,
        classes: list[str],
        epoch_images: int | None = None,
    ):
        self.names, self.reject, self.shuffle, self.classes = names, reject, shuffle, classes
        self.size, self.resize, self.channels, self.mean, self.std = shape
        self.epoch_images = epoch_images

    def __len__(self) -> int:
        if self.epoch_images is None:
            raise ValueError(
                "data.epoch_images is required for training: the number of images per epoch (a stream has no end)"
            )
        return self.epoch_images

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the shards' names, the sizes of local files and the options. Reads no shard."""
        options = (self.reject, self.resize, self.size, self.channels, self.shuffle, len(self.classes))
        digest = hashlib.sha256(repr(options).encode())
        for name in self.names:
            file = Path(name)
            digest.update(f"{file.name} {file.stat().st_size if file.is_file() else ''}\n".encode())
        return digest.hexdigest()

    def samples(self, number: int) -> Iterator[Sample]:
        """Yield all samples of a shard in order."""
        return samples(self.names[number])

    def label(self, sample: Sample) -> int:
        """Return the sample's class, or -1 if it has no label below `len(classes)`."""
        return sample.label if sample.label < len(self.classes) else -1

    def picture(self, sample: Sample) -> Image.Image:
        """Return the decoded sample at its own size; raise Rejected if a rule applies."""
        if sample.rejected and (sample.rejected != "duplicate" or self.reject.duplicates):
            raise Rejected(sample.rejected, f"{sample.name}: {sample.reason}")
        if self.labelled and self.label(sample) < 0:
            raise Rejected("no_label", f"{sample.name}: expected a label from 0 to {len(self.classes) - 1}")
        try:
            image = picture(sample.image, self.channels, sample.name)
            refuse_narrow(image, self.resize, sample.name)
        except Damaged as error:
            raise Rejected("undecodable", str(error)) from None
        self._check_limits(image, sample.name)
        return image

    def _check_limits(self, image: Image.Image, name: str) -> None:
        limits = self.reject
        short, long = sorted(image.size)
        if limits.least_side is not None and short < limits.least_side:
            raise Rejected("small", f"{name}: expected at least {limits.least_side} pixels per side, got {short}")
        if limits.most_aspect is not None and long > limits.most_aspect * short:
            raise Rejected("aspect", f"{name}: expected at most 1 : {limits.most_aspect}, got {short} : {long} pixels")
        if limits.least_std is not None:
            std = max(ImageStat.Stat(image).stddev) / 255
            if std < limits.least_std:
                raise Rejected("constant", f"{name}: expected a std of at least {limits.least_std}, got {std:.4f}")


def webdataset(
    shards: str | list[str] | None = None,
    data_root: str | Path | None = None,
    epoch_images: int | None = None,
    size: int = 224,
    resize: int | None = None,
    flip: bool = True,
    channels: int = 3,
    classes: int = 1000,
    shuffle: int = 1000,
    held_out_shards: int = 1,
    held_out_images: int = 512,
    reject: dict | None = None,
    mean: tuple = (0.485, 0.456, 0.406),
    std: tuple = (0.229, 0.224, 0.225),
) -> Splits:
    """Return splits whose training part is a stream (`Shards`); every other held-out image is a test image.

    Reads the held-out shards until they yield `held_out_images` images, applying the same rules of rejection. `flip` is
    used by the recipes' augmentation.

    Args:
        shards: File, folder, glob or URL, or several; `{000..019}` is a range. Local ones are relative to `data_root`.
        epoch_images: Number of images per epoch; required for training.
        classes: Number of classes; labels are 0 to classes - 1.
        shuffle: Number of encoded images in memory from which the next one is drawn.
        held_out_shards: Number of shards, the last by name, that are held out.
        held_out_images: Maximum number of held-out images, which are kept in memory.
        reject: Limits by name, see `Reject`.
        size, resize, channels, mean, std: See `ImageFiles`.

    Raises:
        ValueError: If the options are invalid, or if the shards hold too few images.
    """
    if not shards:
        raise ValueError("data.shards is required: a file, folder, glob or URL; {000..019} in it is a range")
    for option, value, least in (
        ("epoch_images", epoch_images, 1),
        ("classes", classes, 1),
        ("shuffle", shuffle, 1),
        ("held_out_shards", held_out_shards, 1),
        ("held_out_images", held_out_images, 2),
    ):
        if value is not None and value < least:
            raise ValueError(f"data.{option}={value}: at least {least}")
    shape = transform(size, resize, channels, mean, std)
    names = expand(shards, Path(data_root) if data_root is not None else None)
    if len(names) <= held_out_shards:
        raise ValueError(
            f"data.held_out_shards={held_out_shards}: expected fewer than the shards found ({len(names)}), "
            "or none are left for training"
        )
    names_of_classes = [str(number) for number in range(classes)]
    options = (_reject(reject or {}), shape, shuffle, names_of_classes, epoch_images)
    validation, test = _held_out(Shards(names[-held_out_shards:], *options), held_out_images)
    return Splits(Shards(names[:-held_out_shards], *options), validation, test)


def _reject(limits: dict) -> Reject:
    """Return the limits as a Reject, validated."""
    allowed = vars(Reject())
    for rule, value in limits.items():
        if rule not in allowed:
            raise ValueError(f"data.reject.{rule}{nearest(rule, allowed)}: allowed are {', '.join(allowed)}")
        numeric = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        expected = "true, false or null" if rule == "duplicates" else "a number of at least 0, or null"
        if value is not None and not (isinstance(value, bool) if rule == "duplicates" else numeric):
            raise ValueError(f"data.reject.{rule}={value}: expected {expected}")
    return Reject(**limits)


def _held_out(shards: Shards, most: int) -> tuple[Images, Images]:
    """Return validation and test images: the first `most` that no rule rejects, alternating between the two.

    If at least two of them have labels, those without are left out.
    """
    images, labels, rejected = [], [], Counter()
    first_reason = ""
    for sample in (sample for number in range(len(shards.names)) for sample in shards.samples(number)):
        try:
            images.append(middle(shards.picture(sample), shards.resize, shards.size, sample.name))
            labels.append(shards.label(sample))
        except Rejected as reason:
            rejected[reason.rule] += 1
            first_reason = first_reason or str(reason)
        if len(images) == most:
            break
    if len(images) < 2:
        counts = ", ".join(f"{count} {rule}" for rule, count in rejected.items())
        raise ValueError(
            f"data.held_out_shards={len(shards.names)}: expected at least 2 images, to validate and to test, "
            f"got {len(images)} in {', '.join(shards.names)}"
            + (f"; rejected: {counts}, the first is {first_reason}" if rejected else "")
        )
    pixels, classes = torch.stack(images), torch.tensor(labels)
    usable = torch.arange(len(images))
    if (classes >= 0).sum() > 1:
        usable = usable[classes >= 0]
    facts = (shards.classes, shards.mean, shards.std)
    validation, test = (Images(pixels[part], classes[part], part, *facts) for part in (usable[0::2], usable[1::2]))
    return validation, test
