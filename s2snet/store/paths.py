"""Where trained weights lie: below `runs/` by data, kind and networks; the released ones in the package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2snet.config.networks import Autoencoder, Classifier

# What each stage leaves, by the name under which a defence asks for it.
KINDS = {"classifier": "classifier", "1": "autoencoder", "2": "s2snet", "adversarial": "adversarial"}
WEIGHTS = "weights.safetensors"


def run_name(kind: str, classifier: Classifier, autoencoder: Autoencoder) -> str:
    """The name of a run, such as `s2snet-segnet_small-small_cnn`: the kind and the networks it depends on."""
    networks = {
        "classifier": [classifier],
        "autoencoder": [autoencoder],
        "s2snet": [autoencoder, classifier],
        "adversarial": [classifier],
    }[kind]
    return "-".join([kind, *(network_name(network.config) for network in networks)])


def network_name(config: dict[str, Any]) -> str:
    """What tells a network from others in a path or a sentence: its architecture or target, where it has one.

    timm's say so, since torchvision has networks of the same names.
    """
    if config.get("target"):
        return str(config["target"]).replace(":", ".").replace("/", "_")
    if config.get("arch"):
        return f"timm_{config['arch']}" if config["name"] == "timm" else str(config["arch"])
    return config["name"]


def released() -> Path:
    """The folder of the weights that come with the project: in a wheel inside the package, else checkpoints/."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "released"
    return inside if inside.is_dir() else package.parent / "checkpoints" / "released"


@dataclass(frozen=True)
class Shelf:
    """A folder in which weights are looked up by kind: of runs, or of released files."""

    folder: Path

    def path(self, kind: str, classifier: Classifier, autoencoder: Autoencoder) -> Path:
        """The file of that kind and networks: FOLDER/RUN/weights.safetensors, or FOLDER/RUN.safetensors where it is."""
        name = run_name(kind, classifier, autoencoder)
        flat = self.folder / f"{name}.safetensors"
        return flat if flat.is_file() else self.folder / name / WEIGHTS

    def is_empty(self) -> bool:
        return not any(self.folder.glob("*.safetensors")) and not any(self.folder.glob(f"*/{WEIGHTS}"))
