"""Attackers who know that pixels are removed, and what each of them differentiates. The real defence is the judge.

Each of ATTACKERS builds, for some clean images, a module that an attack can differentiate. If that depends on the hole
of each image, the attack must pass all images at every step, so it does not stop early on fooled ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.attacks import Noise, apgd
from s2snet.models import Defended
from s2snet.threats import ROUTES

BATCH = 64


class Fixed(nn.Module):
    """The defence with the hole of the clean image, whatever image it receives."""

    def __init__(self, defended: Defended, hole: Tensor):
        super().__init__()
        self.defended, self.hole = defended, hole

    def forward(self, images: Tensor) -> Tensor:
        return self.defended.classifier(self.defended.purifier.filled(images, self.hole)[0])


class Confined(nn.Module):
    """The defence for an attacker who leaves the clean image's hole unchanged: it passes no gradient to the hole."""

    def __init__(self, defended: Defended, hole: Tensor):
        super().__init__()
        self.defended, self.hole = defended, hole.bool()

    def forward(self, images: Tensor) -> Tensor:
        return self.defended(torch.where(self.hole, images.detach(), images))


class Attacker(NamedTuple):
    """An attacker: the module that it differentiates, and when it applies."""

    build: Callable[[Defended, Tensor, float], nn.Module]  # (defended, clean images, temperature) -> source
    from_hole: bool = False  # depends on the clean images' hole, so the attack starts at the clean image only
    per_image: bool = False  # differs from the others only if the hole depends on the image


ATTACKERS = {
    "recomputed": Attacker(lambda defended, clean, temperature: defended),
    "bpda": Attacker(lambda defended, clean, temperature: ROUTES["identity"].build(defended, None)),
    "soft": Attacker(
        lambda defended, clean, temperature: ROUTES["soft"].build(defended, None, temperature), per_image=True
    ),
    "fixed": Attacker(
        lambda defended, clean, temperature: Fixed(defended, defended.purifier.hole(clean)),
        from_hole=True,
        per_image=True,
    ),
    "confined": Attacker(
        lambda defended, clean, temperature: Confined(defended, _hole(defended, clean)), from_hole=True
    ),
}


def _hole(defended: Defended, clean: Tensor) -> Tensor:
    """Return the hole of each clean image, or [1, 1, H, W] if it is the same for all."""
    return defended.purifier.hole(clean if _hole_per_image(defended) else clean[:1])


def _hole_per_image(defended: Defended) -> bool:
    return getattr(defended.purifier, "softens", False)


def applicable(defended: Defended) -> list[str]:
    """Return the attackers that differ from each other for this defence."""
    if not defended.has_purifier:
        return ["recomputed"]
    return [name for name, attacker in ATTACKERS.items() if _hole_per_image(defended) or not attacker.per_image]


def craft(
    attacker: str,
    defended: Defended,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    eps: float,
    steps: int,
    losses: list[str],
    restarts: int,
    restart_steps: int,
    temperature: float,
    seed: int,
) -> Tensor:
    """Return adversarial images of APGD in the L2 ball of `eps`; each run attacks what the defence still gets right.

    There is a run of `steps` from the clean image for each loss, then `restarts` runs of `restart_steps` from random
    starts with the first loss, except for an attacker who depends on the clean image's hole. A step is a forward and a
    backward of what the attacker differentiates.
    """
    chosen = ATTACKERS[attacker]
    runs = [{"loss": loss, "steps": steps, "random_start": False} for loss in losses]
    if restarts and not chosen.from_hole:
        runs.append({"loss": losses[0], "steps": restart_steps, "restarts": restarts, "random_start": True})
    crafted = images.clone()
    for run in runs:
        standing = torch.nonzero(batched.right(defended, crafted, labels, BATCH)).squeeze(1)
        for rows in standing.split(BATCH):
            if not len(rows):
                continue
            module = chosen.build(defended, images[rows], temperature)
            crafted[rows] = apgd(
                module,
                images[rows],
                labels[rows],
                eps=eps,
                norm="l2",
                leave_early=not (chosen.from_hole and _hole_per_image(defended)),
                noise=Noise(seed, index[rows.cpu()]),
                **run,
            )
    return crafted
