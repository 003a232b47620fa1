"""Where data lie, and files that are there whole or not at all, whatever happens to the process. Imports no torch."""

import os
from collections.abc import Callable
from pathlib import Path


def data_folder(data_root: str | Path | None) -> Path:
    """The folder below which data and weights that are not shipped lie: the one given, else a cache of the user's."""
    return Path(data_root) if data_root is not None else Path.home() / ".cache" / "s2snet"


def write_whole(path: Path, content: bytes) -> None:
    """Writes the file beside its place, syncs it, renames it and syncs the folder. OSError in one line.

    Two processes may write the same path: each has its own file beside it, and the last rename stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    make_whole(path, lambda beside: beside.write_bytes(content))


def make_whole(path: Path, write: Callable[[Path], object]) -> None:
    """The same for a file that `write(beside)` makes."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        _sync(beside)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written ({error.strerror}); what was done so far is kept") from None
    _sync(path.parent)


def _sync(path: Path) -> None:
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
