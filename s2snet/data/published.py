"""Small published data sets as torchvision reads and downloads them: MNIST, Fashion-MNIST, CIFAR-10 and -100, SVHN.

The test set is the published one, never re-split; validation is carved from the published training images.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from s2snet.data.images import Images, Splits
from s2snet.data.root import data_folder


def load(
    name: str,
    data_root: str | Path | None = None,
    size: int = 32,
    channels: int = 3,
    classes: int = 10,
    validation_every: int = 10,
    download: bool = True,
    mean: tuple = (0.5,),
    std: tuple = (0.5,),
) -> Splits:
    """The splits of torchvision's data set `name`, pixels kept as bytes.

    `size` pads with zeros (MNIST's 28 to 32) and refuses to shrink; `channels` 3 repeats grey. The k-th training image
    validates where k is a multiple of `validation_every`: no random part. `index` counts training images first. Files
    are read below `data_root` (torchvision's layout), or downloaded there. ValueError in one line where neither works.
    """
    root = data_folder(data_root)
    train, test = (_read(name, root, part, download) for part in (True, False))
    names = train[2]
    if classes != len(names):
        raise ValueError(f"data.classes={classes}: {name} has {len(names)}")
    pixels = [_shaped(images, size, channels) for images, _, _ in (train, test)]
    place = torch.arange(len(pixels[0]))
    held_out = place % validation_every == 0
    facts = (names, mean, std)
    return Splits(
        Images(pixels[0][~held_out], train[1][~held_out], place[~held_out], *facts),
        Images(pixels[0][held_out], train[1][held_out], place[held_out], *facts),
        Images(pixels[1], test[1], len(place) + torch.arange(len(pixels[1])), *facts),
    )


def _read(name: str, root: Path, train: bool, download: bool) -> tuple[Tensor, Tensor, list[str]]:
    """(uint8 images [n, C, H, W], labels, class names) of one published part."""
    from s2snet import torchvision_cpu

    torchvision_cpu.mend()
    from torchvision import datasets

    kind = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "svhn": datasets.SVHN,
    }[name]
    part = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
    try:
        found = kind(root, download=False, **part)
    except RuntimeError as missing:
        if not download:
            raise ValueError(
                f"{name} is not below {root} ({_line(missing)}); put it there or take download=true"
            ) from None
        try:
            found = kind(root, download=True, **part)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{name} is not below {root} and could not be downloaded ({_line(error)}); put torchvision's files of "
                f"it there by hand, or point data_root (S2SNET_DATA) to where they are"
            ) from None
    images = torch.as_tensor(found.data)
    if images.dim() == 3:  # MNIST: no channel
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR: channel last
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(found.labels if name == "svhn" else found.targets).long()
    names = list(getattr(found, "classes", [])) or [str(number) for number in range(10)]
    return images.contiguous(), labels, names


def _shaped(images: Tensor, size: int, channels: int) -> Tensor:
    have = images.shape[-1]
    if size < have:
        raise ValueError(f"data.size={size}: the originals have {have} pixels a side; at least {have}")
    if channels not in (images.shape[1], 3):
        raise ValueError(f"data.channels={channels}: the originals have {images.shape[1]}, or 3 with grey repeated")
    before, after = (size - have) // 2, size - have - (size - have) // 2
    padded = torch.nn.functional.pad(images, (before, after, before, after))
    return padded.repeat(1, channels // images.shape[1], 1, 1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _named(name: str, **defaults) -> Callable[..., Splits]:
    return partial(load, name, **defaults)


mnist = _named("mnist", channels=1, mean=(0.1307,), std=(0.3081,))
fashion_mnist = _named("fashion_mnist", channels=1, mean=(0.2860,), std=(0.3530,))
cifar10 = _named("cifar10", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
cifar100 = _named("cifar100", classes=100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
svhn = _named("svhn", mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970))
