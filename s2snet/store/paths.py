"""Locate weights: trained ones below `runs/` by data, kind and networks, released ones in the package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2snet.config.networks import Autoencoder, Classifier

# What each stage trains, by the name that a defence uses for it.
KINDS = {"classifier": "classifier", "1": "autoencoder", "2": "s2snet", "adversarial": "adversarial"}
WEIGHTS = "weights.safetensors"


def run_name(kind: str, classifier: Classifier, autoencoder: Autoencoder) -> str:
    """Return the name of a run: its kind and its networks, such as `s2snet-segnet_small-small_cnn`."""
    networks = {
        "classifier": [classifier],
        "autoencoder": [autoencoder],
        "s2snet": [autoencoder, classifier],
        "adversarial": [classifier],
    }[kind]
    return "-".join([kind, *(network_name(network.config) for network in networks)])


def network_name(config: dict[str, Any]) -> str:
    """Return the name of a network in paths and messages: its target, its architecture, or its name here.

    timm's are marked, since torchvision has networks of the same names.
    """
    if config.get("target"):
        return str(config["target"]).replace(":", ".").replace("/", "_")
    if config.get("arch"):
        return f"timm_{config['arch']}" if config["name"] == "timm" else str(config["arch"])
    return config["name"]


def released() -> Path:
    """Return the folder of the released weights: inside the package in a wheel, else checkpoints/."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "released"
    return inside if inside.is_dir() else package.parent / "checkpoints" / "released"


@dataclass(frozen=True)
class Shelf:
    """A folder of weights by kind: of runs, or of released files."""

    folder: Path

    def path(self, kind: str, classifier: Classifier, autoencoder: Autoencoder) -> Path:
        """Return the file of that kind and networks: FOLDER/RUN.safetensors if it exists, else in FOLDER/RUN."""
        name = run_name(kind, classifier, autoencoder)
        flat = self.folder / f"{name}.safetensors"
        return flat if flat.is_file() else self.folder / name / WEIGHTS

    def is_empty(self) -> bool:
        """Return whether the folder holds no weights."""
        return not any(self.folder.glob("*.safetensors")) and not any(self.folder.glob(f"*/{WEIGHTS}"))
