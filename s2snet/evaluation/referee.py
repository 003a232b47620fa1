"""The referee: whether what an attack returned may count at all. It does not believe the attack."""

from typing import NamedTuple

from torch import Tensor


class Verdict(NamedTuple):
    ok: bool
    reason: str


def verdict(images: Tensor, adversarial: Tensor, norm: str, eps: float) -> Verdict:
    """Checks shape, type, NaN, the box [0, 1] and the ball, the distances in float64 and without any slack."""
    if adversarial.shape != images.shape or adversarial.dtype != images.dtype:
        return Verdict(
            False,
            f"{adversarial.dtype} {tuple(adversarial.shape)} came back for {images.dtype} {tuple(images.shape)}",
        )
    flat = adversarial.flatten(1)
    for problem, bad in (
        ("NaN or infinite", ~flat.isfinite()),
        ("outside [0, 1]", (flat < 0) | (flat > 1)),
    ):
        if bad.any():
            return Verdict(False, f"{int(bad.any(dim=1).sum())} of {len(flat)} images are {problem}")
    over = distances(images, adversarial)[norm] - eps
    if (over > 0).any():
        return Verdict(
            False, f"{int((over > 0).sum())} of {len(flat)} images outside the {norm} ball by up to {over.max():.3g}"
        )
    return Verdict(True, "")


def distances(images: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    """linf, l2, l1 and l2_normalised = ||x' - x||_2 / ||x||_2 of each pair, float64 [B]."""
    clean = images.double().flatten(1)
    delta = adversarial.double().flatten(1) - clean
    l2 = delta.norm(dim=1)
    return {
        "linf": delta.abs().amax(dim=1),
        "l2": l2,
        "l1": delta.abs().sum(dim=1),
        "l2_normalised": l2 / clean.norm(dim=1).clamp(min=1e-12),
    }
