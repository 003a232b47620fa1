"""The basic iterative method: FGSM in small steps, cut to the ball (Kurakin et al.: arXiv 1607.02533)."""

from collections.abc import Callable

from torch import Tensor

from s2snet.attacks._guard import check
from s2snet.attacks.gradients import Passes
from s2snet.attacks.noise import Noise
from s2snet.attacks.pgd import pgd


def bim(
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
    """The best iterate of `steps` steps from the image itself: `pgd` with one start and that not random.

    `step_size` is in pixel units and defaults to 2.5 eps / steps (the paper takes 1/255, which cannot reach
    the rim of every ball). Costs draws x (steps + 1 forwards, steps backwards), less where images leave
    early.
    """
    check(images, labels, targets, norm, bim.norms, eps)
    return pgd(
        model,
        images,
        labels,
        eps=eps,
        norm=norm,
        steps=steps,
        step_size=step_size,
        random_start=False,
        loss=loss,
        draws=draws,
        noise=noise,
        targets=targets,
        leave_early=leave_early,
        passes=passes,
    )


bim.version, bim.norms, bim.minimal = 1, ("linf", "l2"), False
