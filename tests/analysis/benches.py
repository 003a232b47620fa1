"""A bench on a few small images, without the command line, for the tests of the studies."""

from pathlib import Path

import torch
from torch import nn

from s2snet import analysis
from s2snet.analysis.bench import Bench
from s2snet.data import Images, Splits
from s2snet.models import Defended
from s2snet.store.defences import Defence


def splits(count: int = 60, size: int = 8, classes: int = 3, channels: int = 1, seed: int = 0) -> Splits:
    """Return images whose class is the position of a bright square, with noise; three splits of `count` images."""
    generator = torch.Generator().manual_seed(seed)

    def images(first: int) -> Images:
        labels = torch.arange(count) % classes
        pixels = 0.3 * torch.rand(count, channels, size, size, generator=generator)
        width = size // classes
        for place, label in enumerate(labels.tolist()):
            pixels[place, :, 1:-1, label * width : (label + 1) * width] += 0.5
        return Images(pixels, labels, torch.arange(first, first + count), [str(k) for k in range(classes)])

    return Splits(images(0), images(count), images(2 * count))


def bench(study: str, folder: Path, data: Splits, defences: dict[str, nn.Module] | None = None, **more) -> Bench:
    """Return a bench of a study; `defences` are Defended modules or classifiers by name."""

    def find() -> list[Defence]:
        return [
            Defence(name, name, module if isinstance(module, Defended) else Defended(None, module).eval(), [], "", "")
            for name, module in (defences or {}).items()
        ]

    version = analysis.load(study, "study").VERSION if study in analysis.STUDIES else 1
    return Bench(study, version, "squares", data, folder, find, **{"log": lambda text: None, **more})
