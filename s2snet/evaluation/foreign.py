"""Read adversarial images from other tools: in the data's order, and counted only within a budget.

    *.safetensors   tensor `adversarial` [n, C, H, W], and optionally `image` int64 [n]
    *.npz           array of either name, or the only array
    *.pt            a tensor, or a dictionary with it under `adversarial`, `adv_complete` or `x_adv`

`image` holds indices into the data set; without it the file's k-th image belongs to the data's k-th. Integers are read
as 0 to 255.
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
NEAR = 1e-5  # relative excess over a radius that counts as float32 rounding and not as a larger budget


@dataclass
class ForeignImages:
    """The images of one file, all in memory: meant for thousands of images, not millions."""

    name: str
    images: Tensor  # float32 [n, C, H, W] in [0, 1]
    places: dict[int, int] | None  # {index in the data set: place in the file}; None: in the data's order
    fingerprint: str

    def within(
        self, clean: Tensor, index: Tensor, first: int, norm: str, eps: float, rounded: bool
    ) -> tuple[Tensor, int, float]:
        """Return (images [B, C, H, W] inside the ball, number outside by rounding, their largest excess).

        An image that exceeds the radius by no more than rounding (NEAR) is projected into the ball. If it exceeds it
        by more, or is missing from the file, the clean image is used. `rounded` rounds to 8 bits first.
        """
        if self.places is None:
            at = [first + k if first + k < len(self.images) else None for k in range(len(index))]
        else:
            at = [self.places.get(int(i)) for i in index]
        present = torch.tensor([place is not None for place in at])
        images = self.images[[place or 0 for place in at]]
        images = torch.where(present[:, None, None, None], images, clean.cpu())
        if rounded:
            images = (images * 255).round() / 255
        images = images.to(clean.device)
        excess = distances(clean, images)[norm] - eps
        slight = (excess > 0) & (excess <= NEAR * eps)
        projected = Ball(clean, eps, norm).project(images)
        inside = (excess <= 0)[:, None, None, None]
        near = slight[:, None, None, None]
        images = torch.where(inside, images, torch.where(near, projected, clean))
        return images, int(slight.sum()), float(excess[slight].max()) if slight.any() else 0.0


def read(path: str | Path, shape: tuple[int, ...], count: int) -> ForeignImages:
    """Read the images of a file and check shape, type and range. Raises ValueError, in one line, if one is wrong."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"adversarial={path}: no such file")
    tensors = _tensors(path)
    given = next((tensors[name] for name in NAMES if name in tensors), None)
    if given is None and len(tensors) == 1:
        given = next(iter(tensors.values()))
    if given is None:
        holds = ", ".join(tensors) or "no tensors"
        raise ValueError(f"adversarial={path}: expected a tensor named {NAMES[0]!r}, got {holds}")
    if given.dim() != 4 or tuple(given.shape[1:]) != tuple(shape):
        expected = ", ".join(map(str, shape))
        raise ValueError(
            f"adversarial={path}: expected images (n, {expected}) as in the data, got {tuple(given.shape)}"
        )
    images = given.float() if given.is_floating_point() else given.float() / 255
    flat = images.flatten(1)
    for problem, bad in (("NaN or infinite", ~flat.isfinite()), ("outside [0, 1]", (flat < 0) | (flat > 1))):
        if bad.any():
            number = int(bad.any(dim=1).sum())
            hint = "; give them in [0, 1], not normalised" if problem.startswith("outside") else ""
            raise ValueError(f"adversarial={path}: {number} of {len(images)} images are {problem}{hint}")
    places = None
    if "image" in tensors:
        if tensors["image"].shape != (len(images),):
            count = tensors["image"].numel()
            raise ValueError(f"adversarial={path}: expected {len(images)} `image` indices, one per image, got {count}")
        places = {int(index): place for place, index in enumerate(tensors["image"])}
    elif len(images) > count:
        raise ValueError(f"adversarial={path}: {len(images)} images for {count} of the data; add their `image` indices")
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
    except Exception as error:  # torch raises its own types for a pickle that it does not read
        raise ValueError(f"adversarial={path}: cannot be read ({type(error).__name__})") from None
    if path.suffix in (".pt", ".pth"):
        kind = type(held).__name__
        raise ValueError(f"adversarial={path}: expected a tensor or a dictionary with {NAMES[0]!r}, got a {kind}")
    raise ValueError(f"adversarial={path}: expected a .safetensors, .npz or .pt file")
