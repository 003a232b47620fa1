"""Load the 1,797 handwritten digits shipped with scikit-learn (UCI optical recognition, test part, 8 x 8 pixels)."""

import torch
from torch.nn import functional

from s2snet.data.images import Images, Splits


def digits(
    size: int = 32,
    channels: int = 1,
    test_every: int = 5,
    validation_every: int = 10,
    classes: int = 10,
    mean: tuple = (0.5,),
    std: tuple = (0.5,),
) -> Splits:
    """Return digits resized (bilinear) to `size` x `size` with 1 channel, or 3 (gray repeated).

    The split is not random: with the images ordered by class, every fifth is a test image (360, stratified); of the
    other 1,437, every tenth validates (144) and 1,293 train. `mean` and `std` are used by networks that normalise and
    for normalised distances.
    """
    if channels not in (1, 3):
        raise ValueError(f"data.channels={channels}: expected 1 or 3")
    if size < 8:
        raise ValueError(f"data.size={size}: expected at least 8, the side of the originals")
    if classes != 10:
        raise ValueError(f"data.classes={classes}: digits have 10 classes")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16)[:, None]
    images = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    images = images.clamp(0, 1).repeat(1, channels, 1, 1)
    labels = torch.from_numpy(bunch.target).long()
    by_class = torch.argsort(labels, stable=True)
    place = torch.arange(len(by_class))
    # Restore the data set's own order, which mixes the classes: the first 50 images must not be all zeros and ones.
    test, rest = by_class[place % test_every == 0].sort().values, by_class[place % test_every != 0]
    place = torch.arange(len(rest))
    validation, train = rest[place % validation_every == 0], rest[place % validation_every != 0]
    names = [str(name) for name in bunch.target_names]
    return Splits(*(Images(images[part], labels[part], part, names, mean, std) for part in (train, validation, test)))
