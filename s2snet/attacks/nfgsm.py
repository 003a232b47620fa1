"""Noise-augmented FGSM, the single step that trains without catastrophic overfitting (arXiv 2202.01181)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.gradients import Objective, Passes
from s2snet.attacks.noise import Noise


def nfgsm(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    step_size: float | None = None,
    noise_scale: float = 2.0,
    loss: str = "cross_entropy",
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return noisy images after one signed step, clipped to [0, 1] but *not* projected onto the ball.

    A training attack: its images are up to `noise_scale * eps + step_size` away, so it is no entry of ATTACKS and
    never evaluates a defence. Skipping the projection is what keeps single-step training stable (the paper, section 4).

    Args:
        eps: radius in [0, 1] pixel units that the step is sized for.
        step_size: length of the step in pixels; `eps` by default.
        noise_scale: the noise is uniform in (-noise_scale * eps, noise_scale * eps); the paper uses 2 on CIFAR-10.
        loss, draws, noise, targets, passes: as in every attack.

    Costs `draws` forwards and backwards. `leave_early` has no effect on a single step.
    """
    check(images, labels, targets, norm, nfgsm.norms, eps, draws=draws)
    if noise_scale < 0:
        raise ValueError(f"noise_scale={noise_scale}: expected at least 0")
    del leave_early
    noise = Noise() if noise is None else noise
    step_size = eps if step_size is None else step_size
    rows = torch.arange(len(images), device=images.device)
    with untouched(model, noise.seed):
        images = images.detach().clone()
        objective = Objective(model, labels, targets, loss, draws, passes)
        if not len(images):
            return images
        start = images + (2 * noise.uniform(images, rows) - 1) * noise_scale * eps
        _, _, gradient = objective.gradient(start, rows)
        return (start + step_size * gradient.sign()).clamp(0, 1)


nfgsm.version, nfgsm.norms, nfgsm.minimal = 1, ("linf",), False
