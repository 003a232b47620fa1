"""Load any folder of image files, labelled by subfolder, by a CSV file, or not at all."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from s2snet.config.choices import choose
from s2snet.data.image_files import EXTENSIONS, UNLABELLED, image_files
from s2snet.data.images import Splits
from s2snet.data.split import LabelledFile, folder, split_files, transform

MAX_INFERRED_CLASSES = 100_000  # with integer labels, more classes require data.classes
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
    """Return the splits of the images below `root`, without decoding any.

    If the root has folders `train` and `test` (or `val`), these are the parts; otherwise `split_files` splits the
    images. Links are followed, as only the owner of the folder can have made them.

    Args:
        root: The folder, absolute or below `data_root`.
        labels: `folders` (each subfolder is a class), `none`, or the name of a CSV file, relative to the root.
        file_column: CSV column with the file, relative to the root.
        label_column: CSV column with the label, the name or the number of a class.
        name_column: CSV column with the name of a class, for numeric labels.
        split_column: CSV column with the part: train, val or test.
        classes: Number of classes; None counts them. With numeric labels it may exceed the number that occurs.
        size, resize, channels, mean, std: See `ImageFiles`.

    Raises:
        ValueError: If something is missing, empty or contradictory, or if the CSV names a file outside the root.
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
            raise ValueError(f"data.labels={labels}: expected folders, none or a CSV file; there is no file {table}")
        columns = {
            "file_column": file_column,
            "label_column": label_column,
            "name_column": name_column,
            "split_column": split_column,
        }
        read = list(_by_table(table, path, columns))
        rows = [(name, label, part or _part(name, parts, table)) for name, label, _, part in read]
    if not rows:
        raise ValueError(f"data.root={root}: no image file below {path} ({', '.join(sorted(EXTENSIONS))})")
    if labels == "none":
        names = [str(number) for number in range(classes or 0)]
        files = [LabelledFile(name, UNLABELLED, part) for name, _, part in rows]
    elif labels != "folders" and all(label.isdecimal() for _, label, _ in rows):
        names = _numbered(max(int(label) for _, label, _ in rows) + 1, classes, table)
        for _, label, name, _ in read:
            if name:
                names[int(label)] = name
        files = [LabelledFile(name, int(label), part) for name, label, part in rows]
    else:
        names = sorted({label for _, label, _ in rows})
        if classes not in (None, len(names)):
            raise ValueError(f"data.classes={classes}: {path} has {len(names)} classes ({_few(names)})")
        number = {name: place for place, name in enumerate(names)}
        files = [LabelledFile(name, number[label], part) for name, label, part in rows]
    return split_files(path, files, names, shape, test_every, validation_every)


def _parts(root: Path) -> dict[str, str]:
    """Return {folder: part} if the root has a folder for training and one for testing, else {}."""
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
        raise ValueError(f"{table}: {name} is in none of the folders {', '.join(parts)} that split this data set")
    return parts.get(top)


def _below(root: Path, top: str) -> Iterator[str]:
    return (f"{top}/{name}" if top else name for name in image_files(root / top))


def _by_folder(root: Path, parts: dict[str, str]) -> list[tuple[str, str, str | None]]:
    """Return (file, class, part) of each image; ValueError for an image outside class folders or an empty class."""
    rows, classes = [], {}
    for top in parts or [""]:
        seen = set()
        for name in _below(root, top):
            within = PurePosixPath(name).parts[1 if top else 0 :]
            if len(within) < 2:
                raise ValueError(
                    f"{root / name} is not in a class folder; use data.labels=none for images without labels"
                )
            seen.add(within[0])
            rows.append((name, within[0], parts.get(top)))
        folders = {item.name for item in (root / top).iterdir() if item.is_dir() and not item.name.startswith(".")}
        if folders - seen:
            empty = root / top / min(folders - seen)
            raise ValueError(f"the class folder {empty} has no image file ({', '.join(sorted(EXTENSIONS))})")
        classes[top] = seen
    for top, seen in classes.items():
        unknown = seen - classes[next(iter(classes))]
        if unknown:
            raise ValueError(f"the class folder {root / top / min(unknown)} has no counterpart in {root / 'train'}")
    return rows


def _by_table(table: Path, root: Path, columns: dict[str, str | None]) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield (file, label, class name, part) of each row; ValueError, with the line number, for an invalid row."""
    seen, named = set(), {}
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            for option, column in columns.items():
                if column is not None:
                    choose(f"data.{option}", column, reader.fieldnames or [])
            for row in reader:
                line = f"{table} line {reader.line_num}"
                name, label, title, part = ((row[column] if column else "").strip() for column in columns.values())
                path = PurePosixPath(name)
                if "\0" in name or not path.parts or path.is_absolute() or ".." in path.parts:
                    raise ValueError(f"{line}: {name[:80]!r} is not a file below {root}")
                if not label:
                    raise ValueError(f"{line}: no label")
                if str(path) in seen:
                    raise ValueError(f"{line}: {str(path)!r} is listed twice")
                if title and named.setdefault(label, title) != title:
                    raise ValueError(f"{line}: class {label} is named {title!r} here and {named[label]!r} above")
                if columns["split_column"]:
                    choose(f"{line}: {columns['split_column']}", part, PART_OF)
                seen.add(str(path))
                yield str(path), label, title, PART_OF.get(part)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is not a CSV file in UTF-8 ({error})") from None


def _numbered(needed: int, classes: int | None, table: Path) -> list[str]:
    """Return the numbers of the classes as names; ValueError if the labels need more than `classes`."""
    if classes is None and needed > MAX_INFERRED_CLASSES:
        raise ValueError(f"{table}: label {needed - 1}; above {MAX_INFERRED_CLASSES:,} classes set data.classes")
    if classes is not None and needed > classes:
        raise ValueError(f"data.classes={classes}: {table} has labels up to {needed - 1}")
    return [str(number) for number in range(classes or needed)]


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
