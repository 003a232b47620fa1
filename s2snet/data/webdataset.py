"""`data=webdataset`: shards to train on as a stream; the last ones by name are held out for validation and test.

By which rules a sample is rejected is here; in which order samples come, how they are cut at random, and where a stream
goes on after an interruption, is in s2snet/training/streaming.py.
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
from s2snet.data.files import middle, refuse_narrow
from s2snet.data.images import Images, Splits
from s2snet.data.shards import Sample, expand, samples
from s2snet.data.split import Transform, transform

# Why a sample is not used: the first four by s2snet/data/shards.py.
RULES = (
    "broken_shard", "refused", "no_image", "duplicate", "undecodable", "small", "aspect", "constant", "no_label",
)  # fmt: skip


class Rejected(ValueError):
    """A sample that is not used; `rule` is one of RULES, the text is `NAME: reason`."""

    def __init__(self, rule: str, text: str):
        super().__init__(text)
        self.rule = rule


@dataclass(frozen=True)
class Reject:
    """Least and most that an image may have; None switches a rule off. The defaults are placeholders of ours."""

    least_side: int | None = 32
    most_aspect: float | None = 4
    least_std: float | None = 0.0078
    duplicates: bool | None = True


class Shards:
    """Tar shards to train on: samples of one by its number, and the picture of one. Holds no images.

    `epoch_images` is the length: how many images count as an epoch. With `labelled`, samples without a label below
    `len(classes)` are rejected.
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
                "data.epoch_images is needed to train: how many images count as an epoch (a stream has no end)"
            )
        return self.epoch_images

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the shards' names, the sizes of local files and what is made of a sample. Reads none."""
        options = (self.reject, self.resize, self.size, self.channels, self.shuffle, len(self.classes))
        digest = hashlib.sha256(repr(options).encode())
        for name in self.names:
            file = Path(name)
            digest.update(f"{file.name} {file.stat().st_size if file.is_file() else ''}\n".encode())
        return digest.hexdigest()

    def samples(self, number: int) -> Iterator[Sample]:
        """All samples of a shard, as they lie in it."""
        return samples(self.names[number])

    def label(self, sample: Sample) -> int:
        """The sample's class, or -1 where it has none of ours."""
        return sample.label if sample.label < len(self.classes) else -1

    def picture(self, sample: Sample) -> Image.Image:
        """The sample decoded, at its own size; Rejected where a rule says so."""
        if sample.rejected and (sample.rejected != "duplicate" or self.reject.duplicates):
            raise Rejected(sample.rejected, f"{sample.name}: {sample.reason}")
        if self.labelled and self.label(sample) < 0:
            raise Rejected("no_label", f"{sample.name}: no label from 0 to {len(self.classes) - 1}")
        try:
            image = picture(sample.image, self.channels, sample.name)
            refuse_narrow(image, self.resize, sample.name)
        except Damaged as error:
            raise Rejected("undecodable", str(error)) from None
        self._judge(image, sample.name)
        return image

    def _judge(self, image: Image.Image, name: str) -> None:
        rules = self.reject
        short, long = sorted(image.size)
        if rules.least_side is not None and short < rules.least_side:
            raise Rejected("small", f"{name}: {short} pixels; at least {rules.least_side} a side")
        if rules.most_aspect is not None and long > rules.most_aspect * short:
            raise Rejected("aspect", f"{name}: {short} by {long} pixels; at most 1 : {rules.most_aspect}")
        if rules.least_std is not None:
            std = max(ImageStat.Stat(image).stddev) / 255
            if std < rules.least_std:
                raise Rejected("constant", f"{name}: std {std:.4f} of its pixels; at least {rules.least_std}")


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
    """Splits whose training part is a stream (`Shards`); of the held-out images every other one is a test image.

    Local shards lie below `data_root`; `flip` is a fact for the recipes' augmentation. Reads the held-out shards until
    they gave `held_out_images`, by the same rules of rejection. ValueError, in one line, for options and shards that do
    not go together.
    """
    if not shards:
        raise ValueError("data.shards is needed: a file, folder, glob or URL; {000..019} in it stands for a range")
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
        raise ValueError(f"data.shards: {len(names)} found, and data.held_out_shards={held_out_shards}: none to train")
    names_of_classes = [str(number) for number in range(classes)]
    options = (_reject(reject or {}), shape, shuffle, names_of_classes, epoch_images)
    validation, test = _held_out(Shards(names[-held_out_shards:], *options), held_out_images)
    return Splits(Shards(names[:-held_out_shards], *options), validation, test)


def _reject(given: dict) -> Reject:
    allowed = vars(Reject())
    for rule, value in given.items():
        if rule not in allowed:
            raise ValueError(f"data.reject.{rule}{nearest(rule, allowed)}: allowed are {', '.join(allowed)}")
        numeric = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        wanted = "true, false or null" if rule == "duplicates" else "a number from 0 on, or null"
        if value is not None and not (isinstance(value, bool) if rule == "duplicates" else numeric):
            raise ValueError(f"data.reject.{rule}={value}: {wanted}")
    return Reject(**given)


def _held_out(shards: Shards, most: int) -> tuple[Images, Images]:
    """Validation and test images: by turns, the first `most` that no rule rejects.

    Where some of them have labels, those without are left out.
    """
    images, labels, rejected = [], [], Counter()
    first = ""
    for sample in (sample for number in range(len(shards.names)) for sample in shards.samples(number)):
        try:
            images.append(middle(shards.picture(sample), shards.resize, shards.size, sample.name))
            labels.append(shards.label(sample))
        except Rejected as reason:
            rejected[reason.rule] += 1
            first = first or str(reason)
        if len(images) == most:
            break
    if len(images) < 2:
        why = f"; rejected: {', '.join(f'{n} {rule}' for rule, n in rejected.items())}, the first is {first}"
        raise ValueError(
            f"data.held_out_shards={len(shards.names)}: {len(images)} images in {', '.join(shards.names)}, and two are "
            f"needed, to validate and to test{why if rejected else ''}"
        )
    stacked, found = torch.stack(images), torch.tensor(labels)
    usable = torch.arange(len(images))
    if (found >= 0).sum() > 1:
        usable = usable[found >= 0]
    facts = (shards.classes, shards.mean, shards.std)
    validation, test = (Images(stacked[part], found[part], part, *facts) for part in (usable[0::2], usable[1::2]))
    return validation, test
