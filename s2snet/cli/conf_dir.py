"""Find the YAML groups: s2snet/conf in an installed wheel, conf/ next to the package in a checkout."""

from pathlib import Path


def conf_dir() -> Path:
    """Return the folder of the YAML groups."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no configuration in or next to {package}: the installation is incomplete")
