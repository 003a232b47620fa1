"""Check whether the images that an attack returned may count, without trusting the attack."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

AT_ONCE = 64  # images whose quality is measured at once: twice as fast as a whole chunk, and less memory


class Verdict(NamedTuple):
    ok: bool
    reason: str


def verdict(images: Tensor, adversarial: Tensor, norm: str, eps: float) -> Verdict:
    """Check shape, type, NaN, the box [0, 1] and the ball, with distances in float64 and no tolerance.

    `eps` is infinite for a minimal attack.
    """
    if adversarial.shape != images.shape or adversarial.dtype != images.dtype:
        expected, received = (f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (images, adversarial))
        return Verdict(False, f"expected images {expected}, got {received}")
    flat = adversarial.flatten(1)
    for problem, bad in (
        ("NaN or infinite", ~flat.isfinite()),
        ("outside [0, 1]", (flat < 0) | (flat > 1)),
    ):
        if bad.any():
            return Verdict(False, f"{int(bad.any(dim=1).sum())} of {len(flat)} images are {problem}")
    if math.isfinite(eps):
        over = distances(images, adversarial)[norm] - eps
        if (over > 0).any():
            outside = f"{int((over > 0).sum())} of {len(flat)} images outside the {norm} ball by up to {over.max():.3g}"
            return Verdict(False, outside)
    return Verdict(True, "")


def distances(
    images: Tensor, adversarial: Tensor, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Return linf, l2, l1 and l2_normalised = ||x' - x||_2 / ||x||_2 of each pair, float64 [B].

    With the data's `mean` and `std` per channel also l2_standardised: the same ratio after subtracting the mean and
    dividing by the deviation. Subtracting a mean changes the ratio, so both kinds are reported in papers.
    """
    clean, moved = images.double(), adversarial.double()
    delta = (moved - clean).flatten(1)
    l2 = delta.norm(dim=1)
    sizes = {
        "linf": delta.abs().amax(dim=1),
        "l2": l2,
        "l1": delta.abs().sum(dim=1),
        "l2_normalised": l2 / clean.flatten(1).norm(dim=1).clamp(min=1e-12),
    }
    if mean is not None and std is not None:
        shift, scale = (torch.tensor(list(part), device=clean.device, dtype=clean.dtype) for part in (mean, std))
        scaled = ((moved - clean) / scale[:, None, None]).flatten(1).norm(dim=1)
        size = ((clean - shift[:, None, None]) / scale[:, None, None]).flatten(1).norm(dim=1)
        sizes["l2_standardised"] = scaled / size.clamp(min=1e-12)
    return sizes


def quality(purified: Tensor, images: Tensor) -> dict[str, np.ndarray]:
    """Return psnr (dB) and ssim of each purified image, clipped to [0, 1], against the image; float32 [B].

    A perfect copy has an infinite PSNR. SSIM is left out for images smaller than its window of 11 pixels.
    """
    from s2snet import torchvision_cpu

    torchvision_cpu.patch()
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    values: dict[str, list[Tensor]] = {}
    for part, clean in zip(purified.clamp(0, 1).split(AT_ONCE), images.split(AT_ONCE), strict=True):
        every = tuple(range(1, clean.dim()))
        psnr = peak_signal_noise_ratio(part, clean, data_range=1.0, reduction="none", dim=every)
        values.setdefault("psnr", []).append(psnr.reshape(len(clean)))
        if min(images.shape[2:]) >= 11:
            ssim = structural_similarity_index_measure(part, clean, data_range=1.0, reduction="none")
            values.setdefault("ssim", []).append(ssim.reshape(len(clean)))
    return {name: torch.cat(parts).cpu().numpy() for name, parts in values.items()}
