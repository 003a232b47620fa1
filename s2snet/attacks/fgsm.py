"""Implement the fast gradient (sign) method (Goodfellow, Shlens, Szegedy, arXiv 1412.6572, section 4)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball
from s2snet.attacks.gradients import Objective, Passes
from s2snet.attacks.noise import Noise


def fgsm(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "cross_entropy",
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return images moved by eps along the sign (linf) or direction (l2) of the gradient, clipped to [0, 1].

    The arguments shared by all attacks are described in `s2snet.attacks`; `leave_early` has no effect.

    Cost: `draws` forwards and backwards. Not random.
    """
    check(images, labels, targets, norm, fgsm.norms, eps, draws=draws)
    noise = Noise() if noise is None else noise
    del leave_early
    rows = torch.arange(len(images), device=images.device)
    with untouched(model, noise.seed):
        images = images.detach().clone()
        ball = Ball(images, eps, norm)
        objective = Objective(model, labels, targets, loss, draws, passes)
        if not len(images):
            return images
        _, _, gradient = objective.gradient(images, rows)
        return ball.project(images + eps * ball.steepest(gradient, images))


fgsm.version, fgsm.norms, fgsm.minimal = 1, ("linf", "l2"), False
