"""The folder below which data and weights that are not shipped lie."""

from pathlib import Path


def data_folder(data_root: str | Path | None) -> Path:
    """The folder below which data and weights that are not shipped lie: the one given, else a cache of the user's."""
    return Path(data_root) if data_root is not None else Path.home() / ".cache" / "s2snet"
