"""Implement the basic iterative method, FGSM in small steps inside the ball (Kurakin et al., arXiv 1607.02533)."""

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
    """Return the best iterate of `pgd` with a single start at the image itself.

    The arguments shared by all attacks are described in `s2snet.attacks`.

    Args:
        steps: Number of gradient steps.
        step_size: Step length in pixel units. Default: 2.5 eps / steps. (The paper uses 1/255, which is too short to
            reach the surface of large balls.)

    Cost: draws x (steps + 1 forwards, steps backwards), less if images leave early. Not random.
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
