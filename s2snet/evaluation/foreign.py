"""Adversarial images from elsewhere: read from a file, brought to the data's order, counted only within a budget.

    *.safetensors   tensor `adversarial` [n, C, H, W]; `image` int64 [n] says which images they are, if given
    *.npz           array of either name, or the only array
    *.pt            a tensor, or a dictionary with it under `adversarial`, `adv_complete` or `x_adv`

Without indices the file's k-th image belongs to the data's k-th. Integers are read as 0 to 255.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from s2snet.attacks.balls import Ball
from s2snet.evaluation.referee import distances

NAMES = ("adversarial", "adv_complete", "x_adv")  # ours, AutoAttack's and RobustBench's, others'
NEAR = 1e-5  # relative excess over a radius that is a library's float32 rounding and not a larger budget


@dataclass
class ForeignImages:
    """The images of one file. Memory: the file's; they are meant to be thousands, not millions."""

    name: str
    images: Tensor  # float32 [n, C, H, W] in [0, 1]
    places: dict[int, int] | None  # {index in the data set: place in the file}; None for the data's order
    fingerprint: str

    def within(
        self, clean: Tensor, index: Tensor, first: int, norm: str, eps: float, rounded: bool
    ) -> tuple[Tensor, int, float]:
        """(images [B, C, H, W] inside the ball, how many lay outside by rounding, by how much at most).

        An image that exceeds the radius by no more than a library's rounding (NEAR) is projected into the ball;
        one beyond it, or that the file lacks, is left as the clean one: it is no image of this budget. `rounded`
        takes the images after saving with 8 bits.
        """
        if self.places is None:
            at = [first + k if first + k < len(self.images) else None for k in range(len(index))]
        else:
            at = [self.places.get(int(i)) for i in index]
        there = torch.tensor([place is not None for place in at])
        given = self.images[[place or 0 for place in at]]
        given = torch.where(there[:, None, None, None], given, clean.cpu())
        if rounded:
            given = (given * 255).round() / 255
        found = given.to(clean.device)
        excess = distances(clean, found)[norm] - eps
        slight = (excess > 0) & (excess <= NEAR * eps)
        inside = Ball(clean, eps, norm).project(found)
        keep = (excess <= 0)[:, None, None, None]
        near = slight[:, None, None, None]
        found = torch.where(keep, found, torch.where(near, inside, clean))
        return found, int(slight.sum()), float(excess[slight].max()) if slight.any() else 0.0


def read(path: str | Path, shape: tuple[int, ...], count: int) -> ForeignImages:
    """The images of a file, checked: shape, type, NaN, the box. ValueError, in one line, for what cannot be judged."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"adversarial={path}: no such file")
    tensors = _tensors(path)
    found = next((tensors[name] for name in NAMES if name in tensors), None)
    if found is None and len(tensors) == 1:
        found = next(iter(tensors.values()))
    if found is None:
        raise ValueError(f"adversarial={path}: holds {', '.join(tensors) or 'nothing'}; wanted is {NAMES[0]}")
    if found.dim() != 4 or tuple(found.shape[1:]) != tuple(shape):
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"adversarial={path}: images {tuple(found.shape)}; the data's are (n, {wanted})")
    images = found.float() if found.is_floating_point() else found.float() / 255
    flat = images.flatten(1)
    for problem, bad in (("NaN or infinite", ~flat.isfinite()), ("outside [0, 1]", (flat < 0) | (flat > 1))):
        if bad.any():
            number = int(bad.any(dim=1).sum())
            hint = "; normalised images? Give them in [0, 1]" if problem.startswith("outside") else ""
            raise ValueError(f"adversarial={path}: {number} of {len(images)} images are {problem}{hint}")
    places = None
    if "image" in tensors:
        if tensors["image"].shape != (len(images),):
            given = tensors["image"].numel()
            raise ValueError(f"adversarial={path}: {given} `image` indices for {len(images)} images")
        places = {int(index): place for place, index in enumerate(tensors["image"])}
    elif len(images) > count:
        raise ValueError(f"adversarial={path}: {len(images)} images; the data has {count}. Give their `image` indices")
    digest = hashlib.sha256(images.numpy().tobytes() + repr(sorted((places or {}).items())).encode()).hexdigest()
    return ForeignImages(path.stem, images, places, digest)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: torch.from_numpy(file[name]) for name in file.files}
        if path.suffix in (".pt", ".pth"):
            held = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(held, Tensor):
                return {"adversarial": held}
            if isinstance(held, dict):
                return {name: value for name, value in held.items() if isinstance(value, Tensor)}
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError) as error:
        raise ValueError(f"adversarial={path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    except Exception as error:  # a pickle that torch refuses raises its own kinds
        raise ValueError(f"adversarial={path}: cannot be read ({type(error).__name__})") from None
    if path.suffix in (".pt", ".pth"):
        kind = type(held).__name__
        raise ValueError(f"adversarial={path}: holds a {kind}; wanted is a tensor, or a dictionary with {NAMES[0]}")
    raise ValueError(f"adversarial={path}: allowed are .safetensors, .npz and .pt files")
