"""A probe of the data: the range of pixels, and test images that are in the training set."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from s2snet.audit.probes.passes import digest

NEAR = 0.997  # correlation of a near copy; between different digits, MNIST or CIFAR-10 images it is at most 0.994


def pixels_and_copies(images: Sequence, train: Sequence | None, most: int = 20_000) -> dict[str, Any]:
    """Count pixels outside [0, 1] and off the 8-bit grid, and find test images that are copies of training images.

    Reads the first `most` images of each.
    """
    outside = off = pixels = 0
    digests: dict[str, int] = {}
    for place in range(min(len(images), most)):
        image = images[place][0]
        outside += int(((image < 0) | (image > 1) | ~image.isfinite()).sum())
        off += int(((image * 255 - (image * 255).round()).abs() > 1e-3).sum())
        pixels += image.numel()
        digests.setdefault(digest(image), int(images[place][2]))
    copies = []
    if train is not None:
        for place in range(min(len(train), most)):
            index = digests.get(digest(train[place][0]))
            if index is not None:
                copies.append(index)
    return {
        "outside": outside / max(pixels, 1),
        "off_grid": off / max(pixels, 1),
        "read": min(len(images), most),
        "train_read": 0 if train is None else min(len(train), most),
        "in_training": sorted(set(copies))[:10],
        "in_training_count": len(set(copies)),
        "nearly_in_training": [] if train is None else _near_copies(images, train, most),
    }


def _near_copies(images: Sequence, train: Sequence, most: int) -> list[int]:
    """Return the indices of test images that equal a training image up to brightness, contrast and slight noise.

    Each is compared at full size with the training image whose 8 x 8 thumbnail correlates best. Shifted, flipped and
    cropped copies are not found. Takes some seconds for 20,000 times 20,000 images.
    """

    def standardised(pixels: Tensor) -> Tensor:
        centred = pixels.flatten(1) - pixels.flatten(1).mean(dim=1, keepdim=True)
        return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6)

    def thumbnails(source: Sequence) -> Tensor:
        small = [functional.adaptive_avg_pool2d(source[place][0], 8) for place in range(min(len(source), most))]
        return standardised(torch.stack(small))

    if not len(images) or not len(train):
        return []
    of_train, copies = thumbnails(train), []
    for places in torch.arange(min(len(images), most)).split(500):
        of_test = thumbnails([images[place] for place in places.tolist()])
        for place, nearest in zip(places.tolist(), (of_test @ of_train.T).argmax(dim=1).tolist(), strict=True):
            pair = standardised(torch.stack([images[place][0], train[nearest][0]]))
            if float(pair[0] @ pair[1]) > NEAR:
                copies.append(int(images[place][2]))
    return copies
