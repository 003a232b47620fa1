"""Where the YAML groups lie: s2snet/conf in an installed wheel, conf/ beside the package in a checkout."""

from pathlib import Path


def conf_dir() -> Path:
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no configuration beside {package}: the installation is incomplete")
