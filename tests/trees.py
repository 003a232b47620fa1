"""Small folders of image files, as users have them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

FLOWERS = [f"{kind}/{number:02}.png" for kind in ("daisy", "rose", "tulip") for number in range(10)]
WNIDS = ("n01440764", "n01443537", "n02123045")
IMAGENET = [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in WNIDS for number in range(6)]
IMAGENET += [
    f"val/{wnid}/ILSVRC2012_val_{9 - 3 * place + k:08}.JPEG" for place, wnid in enumerate(WNIDS) for k in (0, 1)
]


def plant(root: Path, names: Iterable[str], height: int = 20, width: int = 24) -> Path:
    """Writes an image of that name's own colours for each name; returns the root."""
    for name in names:
        random = np.random.default_rng(list(name.encode()))
        small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR).save(path)
    return root


def damage(root: Path, names: Iterable[str]) -> None:
    """Cuts the end off the files, in the middle of the pixels."""
    for name in names:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) * 9 // 10])


# The options with which `data.load` finds such a tree below a data root, by data set.
OPTIONS = {
    "imagefolder": {"root": "flowers", "size": 16},
    "imagenet": {"classes": 3, "size": 16, "validation_every": 6},
}


def plant_all(data_root: Path) -> Path:
    plant(data_root / "flowers", FLOWERS)
    plant(data_root / "imagenet", IMAGENET)
    return data_root
