"""The iterative least-likely class method (Kurakin, Goodfellow, Bengio: arXiv 1607.02533, section 2.3)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball
from s2snet.attacks.gradients import Best, Passes, Prober
from s2snet.attacks.noise import Noise


def least_likely(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross_entropy",
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """The best iterate of `steps` steps toward the class that the module gives the image itself the least.

    It fools, as in the paper, wherever the prediction leaves the label. Picks its classes itself: `targets`
    must be None. `step_size` is in pixel units and defaults to 2.5 eps / steps. Not random. Costs draws x
    (steps + 2 forwards, steps backwards), less where images leave early.
    """
    check(images, labels, targets, norm, least_likely.norms, eps, steps=steps, draws=draws)
    if targets is not None:
        raise ValueError("least_likely picks its targets itself; for targets of your own take bim")
    step_size = 2.5 * eps / steps if step_size is None else step_size
    noise = Noise() if noise is None else noise
    with untouched(model, noise.seed):
        images = images.detach().clone()
        ball = near = Ball(images, eps, norm)
        best = Best(images)
        prober = Prober(model, labels, None, loss, draws, passes)
        rows = torch.arange(len(images), device=images.device)
        if not len(rows):
            return images
        prober.look(images, rows)
        # the label itself can come last; the attack then aims at the last of the others
        others = prober.logits.scatter(1, labels[:, None], torch.inf)
        prober.aims = others.argmin(dim=1)
        x = images
        for _ in range(steps):
            if not len(rows):
                break
            fools, value, gradient = prober.gradient(x, rows)
            best.see(rows, x, fools, value)
            if leave_early and fools.any():
                rows, x, gradient = rows[~fools], x[~fools], gradient[~fools]
                near = ball.rows(rows)
            x = near.project(x + step_size * near.steepest(gradient, x))
        if len(rows):
            best.see(rows, x, *prober.look(x, rows))
        return best.images


least_likely.version, least_likely.norms, least_likely.minimal = 1, ("linf", "l2"), False
