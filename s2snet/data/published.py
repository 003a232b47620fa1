"""Load small published data sets with torchvision: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN.

The test set is the published one; validation images are split off the published training images.
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
    """Return the splits of torchvision's data set `name`, with uint8 pixels.

    The k-th training image validates if k is a multiple of `validation_every`: not random. `index` counts the training
    images first.

    Args:
        name: mnist, fashion_mnist, cifar10, cifar100 or svhn.
        data_root: Folder with the files in torchvision's layout, which are downloaded to it if missing.
        size: Pixels per side; pads with zeros (MNIST: 28 to 32) and cannot be smaller than the originals.
        channels: Channels of the originals, or 3 to repeat gray.

    Raises:
        ValueError: If the files are missing and cannot be downloaded, or if the options do not fit the data set.
    """
    root = data_folder(data_root)
    train, test = (_read(name, root, part, download) for part in (True, False))
    names = train[2]
    if classes != len(names):
        raise ValueError(f"data.classes={classes}: {name} has {len(names)} classes")
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
    """Return (uint8 images [n, C, H, W], labels, class names) of the published training or test images."""
    from s2snet import torchvision_cpu

    torchvision_cpu.patch()
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
        dataset = kind(root, download=False, **part)
    except RuntimeError as missing:
        if not download:
            raise ValueError(
                f"{name} is not below {root} ({_line(missing)}); put it there or set download=true"
            ) from None
        try:
            dataset = kind(root, download=True, **part)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{name} is not below {root} and could not be downloaded ({_line(error)}); put torchvision's files "
                f"there by hand, or point data_root (S2SNET_DATA) to their folder"
            ) from None
    images = torch.as_tensor(dataset.data)
    if images.dim() == 3:  # MNIST: no channel
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR: channel last
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(dataset.labels if name == "svhn" else dataset.targets).long()
    names = list(getattr(dataset, "classes", [])) or [str(number) for number in range(10)]
    return images.contiguous(), labels, names


def _shaped(images: Tensor, size: int, channels: int) -> Tensor:
    """Pad the images with zeros to `size` and repeat gray to `channels`."""
    side = images.shape[-1]
    if size < side:
        raise ValueError(f"data.size={size}: expected at least {side}, the side of the originals")
    allowed = sorted({images.shape[1], 3})
    if channels not in allowed:
        raise ValueError(f"data.channels={channels}: expected {' or '.join(map(str, allowed))}")
    before = (size - side) // 2
    after = size - side - before
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
