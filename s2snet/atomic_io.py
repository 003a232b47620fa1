"""Write files so that they are whole or absent, whatever happens to the process. Imports no torch."""

import os
from collections.abc import Callable
from pathlib import Path


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
