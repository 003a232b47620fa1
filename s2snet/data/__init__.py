"""Load data sets by name: training, validation and test images in [0, 1] with labels."""

import inspect
from pathlib import Path
from typing import Any

from s2snet.config.choices import nearest
from s2snet.data import published
from s2snet.data.digits import digits
from s2snet.data.image_files import ImageFiles
from s2snet.data.imagefolder import imagefolder
from s2snet.data.imagenet import imagenet
from s2snet.data.images import Images, Splits, Streamed, split_validation
from s2snet.data.webdataset import Shards, webdataset

DATA = {
    "digits": digits,
    "mnist": published.mnist,
    "fashion_mnist": published.fashion_mnist,
    "cifar10": published.cifar10,
    "cifar100": published.cifar100,
    "svhn": published.svhn,
    "imagefolder": imagefolder,
    "imagenet": imagenet,
    "webdataset": webdataset,
}

__all__ = ["DATA", "ImageFiles", "Images", "Shards", "Splits", "Streamed", "load", "split_validation"]


def load(name: str, data_root: str | Path | None = None, **options: Any) -> Splits:
    """Return the splits of a data set of DATA. ValueError, with what is allowed, for an unknown name or option.

    `data_root` is the folder of data that is not shipped; data sets that need none ignore it.
    """
    if name not in DATA:
        raise ValueError(f"unknown data set {name!r}{nearest(name, DATA)}; allowed are {', '.join(DATA)}")
    allowed = inspect.signature(DATA[name]).parameters
    unknown = [option for option in options if option not in allowed]
    if unknown:
        hint = nearest(unknown[0], allowed)
        raise ValueError(f"data set {name} has no option {unknown[0]!r}{hint}; allowed are {', '.join(allowed)}")
    if "data_root" in allowed:
        options["data_root"] = data_root
    return DATA[name](**options)
