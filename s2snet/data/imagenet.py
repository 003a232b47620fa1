"""ImageNet's classification set (ILSVRC-2012) as its folders come: a class's number is its WordNet id's place."""

import csv
from pathlib import Path

from s2snet.config.choices import choose
from s2snet.data.files import image_files
from s2snet.data.images import Splits
from s2snet.data.split import Found, carve, folder, transform

SOLUTION = ("ImageId", "PredictionString")


def imagenet(
    root: str = "imagenet",
    data_root: str | Path | None = None,
    val_labels: str = "LOC_val_solution.csv",
    size: int = 224,
    resize: int | None = None,
    channels: int = 3,
    classes: int = 1000,
    validation_every: int = 50,
    flip: bool = True,
    scale: tuple = (0.08, 1.0),
    mean: tuple = (0.485, 0.456, 0.406),
    std: tuple = (0.229, 0.224, 0.225),
) -> Splits:
    """The splits of `train/WNID/*` and `val/WNID/*` below `root`; the published validation images are the test set.

    A flat `val/*` has its labels in `val_labels`, a file relative to the root. Without `train` there is nothing to
    train on, and an evaluation works. Of the training images every `validation_every`-th validates. `flip` and `scale`
    are facts for the recipes' augmentation, `mean` and `std` for the networks' configs.
    """
    shape = transform(size, resize, channels, mean, std)
    path = folder(root, data_root)
    if not (path / "val").is_dir():
        raise ValueError(f"data.root={root}: no folder {path / 'val'}; ILSVRC-2012 has train/WNID/* and val/WNID/*")
    train = [(f"train/{name}", name.partition("/")[0]) for name in _images(path / "train")]
    test = _validation(path, val_labels)
    wnids = sorted({wnid for _, wnid in train or test})
    if classes != len(wnids):
        raise ValueError(f"data.classes={classes}: {path / ('train' if train else 'val')} has {len(wnids)}")
    number = {wnid: place for place, wnid in enumerate(wnids)}
    unknown = {wnid for _, wnid in test} - set(wnids)
    if unknown:
        raise ValueError(f"{path / 'val'} has images of {min(unknown)}, which {path / 'train'} lacks")
    found = [Found(name, number[wnid], "train") for name, wnid in train]
    found += [Found(name, number[wnid], "test") for name, wnid in test]
    return carve(path, found, wnids, shape, 1, validation_every)


def _images(path: Path) -> list[str]:
    return list(image_files(path)) if path.is_dir() else []


def _validation(path: Path, val_labels: str) -> list[tuple[str, str]]:
    """(file, WordNet id) of each published validation image."""
    names = _images(path / "val")
    if not names:
        raise ValueError(f"no image file below {path / 'val'}")
    if all("/" in name for name in names):
        return [(f"val/{name}", name.partition("/")[0]) for name in names]
    table = path / val_labels
    if not table.is_file():
        raise ValueError(
            f"{path / 'val'} has no folders by class, and there is no {table} (data.val_labels) with labels"
        )
    with open(table, newline="", encoding="utf-8") as file:
        try:
            reader = csv.DictReader(file, restval="")
            for column in SOLUTION:
                choose(f"{table}: column", column, reader.fieldnames or [])
            wnids = {row[SOLUTION[0]]: row[SOLUTION[1]].partition(" ")[0] for row in reader}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{table} is no CSV in UTF-8 ({error})") from None
    unlabelled = [name for name in names if not wnids.get(Path(name).stem)]
    if unlabelled:
        raise ValueError(f"{table} has no label for {min(unlabelled)} and {len(unlabelled) - 1} more")
    return [(f"val/{name}", wnids[Path(name).stem]) for name in names]
