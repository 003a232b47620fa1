"""Find the folder for data and weights that are not shipped."""

from pathlib import Path


def data_folder(data_root: str | Path | None) -> Path:
    """Return `data_root`, or the user's cache folder if it is None."""
    return Path(data_root) if data_root is not None else Path.home() / ".cache" / "s2snet"
