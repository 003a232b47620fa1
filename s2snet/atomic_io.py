"""Write files atomically: they are complete or absent, even if the process is killed. Imports no torch."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file in the same folder, sync it, rename it to `path` and sync the folder.

    Several processes may write the same path: each has its own temporary file, and the last rename wins. Raises a
    one-line OSError if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    make_whole(path, lambda temporary: temporary.write_bytes(content))


def make_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Do the same for a file that `write(temporary)` writes; the folder must exist."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written ({error.strerror}); earlier results are kept") from None
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
