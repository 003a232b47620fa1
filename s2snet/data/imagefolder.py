"""Any folder of image files as a data set: labelled by subfolder, by a CSV of file and label, or not at all."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from s2snet.config.choices import choose
from s2snet.data.files import ENDINGS, UNLABELLED, image_files
from s2snet.data.images import Splits
from s2snet.data.split import Found, carve, folder, transform

MOST_COUNTED = 100_000  # classes that integer labels may ask for without data.classes saying so
PART_OF = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


def imagefolder(
    root: str | None = None,
    data_root: str | Path | None = None,
    labels: str = "folders",
    file_column: str = "file",
    label_column: str = "label",
    name_column: str | None = None,
    split_column: str | None = None,
    size: int = 224,
    resize: int | None = None,
    channels: int = 3,
    classes: int | None = None,
    test_every: int = 5,
    validation_every: int = 10,
    mean: tuple = (0.485, 0.456, 0.406),
    std: tuple = (0.229, 0.224, 0.225),
) -> Splits:
    """The splits of the images below `root`; nothing is decoded yet.

    `labels` is `folders` (a class is a subfolder), `none`, or the name of a CSV file, relative to the root, whose
    columns name a file below the root, its label (a class's name, or its number), and, if wanted, the class's name and
    the part (train, val, test). Where the root has folders `train` and `test` (or `val`) these are the parts; carve
    says how the rest is split. `classes` null counts them; with numbers for labels it may be more than occur.

    ValueError in one line for what is not there, is empty or contradicts itself, and for a CSV that names a file
    outside the root. Links are followed: who made the folder made them, and a CSV cannot.
    """
    shape = transform(size, resize, channels, mean, std)
    path = folder(root, data_root)
    parts = _parts(path)
    if labels == "folders":
        rows = _by_folder(path, parts)
    elif labels == "none":
        rows = [(name, "", parts.get(name.partition("/")[0])) for top in parts or [""] for name in _below(path, top)]
    else:
        table = path / labels
        if not table.is_file():
            raise ValueError(f"data.labels={labels}: neither folders nor none nor a CSV file ({table})")
        columns = {
            "file_column": file_column,
            "label_column": label_column,
            "name_column": name_column,
            "split_column": split_column,
        }
        read = list(_by_table(table, path, columns))
        rows = [(name, label, part or _part(name, parts, table)) for name, label, _, part in read]
    if not rows:
        raise ValueError(f"data.root={root}: no image file below {path} ({', '.join(sorted(ENDINGS))})")
    if labels == "none":
        names = [str(number) for number in range(classes or 0)]
        found = [Found(name, UNLABELLED, part) for name, _, part in rows]
    elif labels != "folders" and all(label.isdecimal() for _, label, _ in rows):
        names = _counted(max(int(label) for _, label, _ in rows) + 1, classes, table)
        for _, label, name, _ in read:
            if name:
                names[int(label)] = name
        found = [Found(name, int(label), part) for name, label, part in rows]
    else:
        names = sorted({label for _, label, _ in rows})
        if classes not in (None, len(names)):
            raise ValueError(f"data.classes={classes}: {path} has {len(names)} ({_few(names)})")
        number = {name: place for place, name in enumerate(names)}
        found = [Found(name, number[label], part) for name, label, part in rows]
    return carve(path, found, names, shape, test_every, validation_every)


def _parts(root: Path) -> dict[str, str]:
    """{folder: part} where the root has a folder of its own for training and one for testing, else {}."""
    train, val, test = ((root / name).is_dir() for name in ("train", "val", "test"))
    if not train or not (val or test):
        return {}
    parts = {"train": "train"}
    if val:
        parts["val"] = "validation" if test else "test"
    if test:
        parts["test"] = "test"
    return parts


def _part(name: str, parts: dict[str, str], table: Path) -> str | None:
    top = name.partition("/")[0]
    if parts and top not in parts:
        raise ValueError(f"{table}: {name} lies in none of {', '.join(parts)}, which split this data set")
    return parts.get(top)


def _below(root: Path, top: str) -> Iterator[str]:
    return (f"{top}/{name}" if top else name for name in image_files(root / top))


def _by_folder(root: Path, parts: dict[str, str]) -> list[tuple[str, str, str | None]]:
    """(file, class, part) of each image; ValueError for one in no class's folder, and for an empty class."""
    rows, classes = [], {}
    for top in parts or [""]:
        seen = set()
        for name in _below(root, top):
            within = PurePosixPath(name).parts[1 if top else 0 :]
            if len(within) < 2:
                raise ValueError(
                    f"{root / name} lies in no class's folder; data.labels=none takes images without labels"
                )
            seen.add(within[0])
            rows.append((name, within[0], parts.get(top)))
        there = {item.name for item in (root / top).iterdir() if item.is_dir() and not item.name.startswith(".")}
        if there - seen:
            empty = root / top / min(there - seen)
            raise ValueError(f"the class folder {empty} has no image file ({', '.join(sorted(ENDINGS))})")
        classes[top] = seen
    for top, seen in classes.items():
        unknown = seen - classes[next(iter(classes))]
        if unknown:
            raise ValueError(f"the class folder {root / top / min(unknown)} has none of that name in {root / 'train'}")
    return rows


def _by_table(table: Path, root: Path, columns: dict[str, str | None]) -> Iterator[tuple[str, str, str, str | None]]:
    """(file, label, class name, part) of each row; ValueError, with the line, for what cannot be meant."""
    seen, named = set(), {}
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            for option, column in columns.items():
                if column is not None:
                    choose(f"data.{option}", column, reader.fieldnames or [])
            for row in reader:
                here = f"{table} line {reader.line_num}"
                name, label, title, part = ((row[column] if column else "").strip() for column in columns.values())
                way = PurePosixPath(name)
                if "\0" in name or not way.parts or way.is_absolute() or ".." in way.parts:
                    raise ValueError(f"{here}: {name[:80]!r} is no file below {root}")
                if not label:
                    raise ValueError(f"{here}: no label")
                if str(way) in seen:
                    raise ValueError(f"{here}: {str(way)!r} a second time")
                if title and named.setdefault(label, title) != title:
                    raise ValueError(f"{here}: class {label} is named {title!r}, and {named[label]!r} above")
                if columns["split_column"]:
                    choose(f"{here}: {columns['split_column']}", part, PART_OF)
                seen.add(str(way))
                yield str(way), label, title, PART_OF.get(part)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is no CSV in UTF-8 ({error})") from None


def _counted(needed: int, classes: int | None, table: Path) -> list[str]:
    """Names for numbered classes; ValueError where the labels need more than there are said to be."""
    if classes is None and needed > MOST_COUNTED:
        raise ValueError(f"{table}: a label of {needed - 1}; above {MOST_COUNTED:,} classes data.classes must say so")
    if classes is not None and needed > classes:
        raise ValueError(f"data.classes={classes}: {table} has labels up to {needed - 1}")
    return [str(number) for number in range(classes or needed)]


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
