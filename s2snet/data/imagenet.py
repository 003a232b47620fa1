"""Load ImageNet (ILSVRC-2012) in its standard layout; classes are numbered in the order of their WordNet ids."""

import csv
from pathlib import Path

from s2snet.config.choices import choose
from s2snet.data.image_files import image_files
from s2snet.data.images import Splits
from s2snet.data.split import LabelledFile, folder, split_files, transform

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
    """Return the splits of `train/WNID/*` and `val/WNID/*` below `root`.

    The published validation images are the test set; every `validation_every`-th training image validates. Without a
    folder `train` only evaluations work. `flip` and `scale` are used by the recipes' augmentation, `mean` and `std` by
    networks that normalise.

    Args:
        root: The folder, absolute or below `data_root`.
        val_labels: CSV file with the labels of a flat `val/*`, absolute or relative to the root.
    """
    shape = transform(size, resize, channels, mean, std)
    path = folder(root, data_root)
    if not (path / "val").is_dir():
        raise ValueError(f"data.root={root}: no folder {path / 'val'}; expected train/WNID/* and val/WNID/*")
    train = [(f"train/{name}", name.partition("/")[0]) for name in _images(path / "train")]
    test = _validation(path, val_labels)
    wnids = sorted({wnid for _, wnid in train or test})
    if classes != len(wnids):
        raise ValueError(f"data.classes={classes}: {path / ('train' if train else 'val')} has {len(wnids)} classes")
    number = {wnid: place for place, wnid in enumerate(wnids)}
    unknown = {wnid for _, wnid in test} - set(wnids)
    if unknown:
        raise ValueError(f"{path / 'val'} has images of class {min(unknown)}, which is missing in {path / 'train'}")
    files = [LabelledFile(name, number[wnid], "train") for name, wnid in train]
    files += [LabelledFile(name, number[wnid], "test") for name, wnid in test]
    return split_files(path, files, wnids, shape, 1, validation_every)


def _images(path: Path) -> list[str]:
    return list(image_files(path)) if path.is_dir() else []


def _validation(path: Path, val_labels: str) -> list[tuple[str, str]]:
    """Return (file, WordNet id) of each published validation image."""
    names = _images(path / "val")
    if not names:
        raise ValueError(f"no image file below {path / 'val'}")
    if all("/" in name for name in names):
        return [(f"val/{name}", name.partition("/")[0]) for name in names]
    table = path / val_labels
    if not table.is_file():
        raise ValueError(
            f"{path / 'val'} has no class folders, and there is no file {table} (data.val_labels) with the labels"
        )
    with open(table, newline="", encoding="utf-8") as file:
        try:
            reader = csv.DictReader(file, restval="")
            for column in SOLUTION:
                choose(f"{table}: column", column, reader.fieldnames or [])
            wnids = {row[SOLUTION[0]]: row[SOLUTION[1]].partition(" ")[0] for row in reader}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{table} is not a CSV file in UTF-8 ({error})") from None
    unlabelled = [name for name in names if not wnids.get(Path(name).stem)]
    if unlabelled:
        raise ValueError(f"{table} has no label for {min(unlabelled)} and {len(unlabelled) - 1} more")
    return [(f"val/{name}", wnids[Path(name).stem]) for name in names]
