"""Attackers who know that pixels are taken out: how each sees the defence. The real defence judges what they make.

`ATTACKERS` build, for some clean images, a module that an attack can differentiate. Where what they see is bound to a
hole of each image, an attack must ask about all images at every step, so none may leave early.
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
    """The defence as it would be with the hole of the clean image, whatever image it receives."""

    def __init__(self, defended: Defended, hole: Tensor):
        super().__init__()
        self.defended, self.hole = defended, hole

    def forward(self, images: Tensor) -> Tensor:
        return self.defended.classifier(self.defended.purifier.filled(images, self.hole)[0])


class Confined(nn.Module):
    """The defence before an attacker who leaves the clean image's hole alone: no gradient comes from there."""

    def __init__(self, defended: Defended, hole: Tensor):
        super().__init__()
        self.defended, self.hole = defended, hole.bool()

    def forward(self, images: Tensor) -> Tensor:
        return self.defended(torch.where(self.hole, images.detach(), images))


class Attacker(NamedTuple):
    """How an attacker sees the defence before some images."""

    build: Callable[[Defended, Tensor, float], nn.Module]  # (defended, clean images, temperature) -> what he asks
    from_hole: bool = False  # it depends on the clean images' hole, and no start but the clean image will do
    choosing: bool = False  # says something only of a defence whose hole depends on the image


ATTACKERS = {
    "recomputed": Attacker(lambda defended, clean, temperature: defended),
    "bpda": Attacker(lambda defended, clean, temperature: ROUTES["identity"].build(defended, None)),
    "soft": Attacker(
        lambda defended, clean, temperature: ROUTES["soft"].build(defended, None, temperature), choosing=True
    ),
    "fixed": Attacker(
        lambda defended, clean, temperature: Fixed(defended, defended.purifier.hole(clean)),
        from_hole=True,
        choosing=True,
    ),
    "confined": Attacker(
        lambda defended, clean, temperature: Confined(defended, _hole(defended, clean)), from_hole=True
    ),
}


def _hole(defended: Defended, clean: Tensor) -> Tensor:
    """The hole of each clean image, or [1, 1, H, W] where it is one for all."""
    return defended.purifier.hole(clean if _chooses(defended) else clean[:1])


def _chooses(defended: Defended) -> bool:
    return getattr(defended.purifier, "softens", False)


def offered(defended: Defended) -> list[str]:
    """The attackers that say something of this defence."""
    if not defended.has_purifier:
        return ["recomputed"]
    return [name for name, attacker in ATTACKERS.items() if _chooses(defended) or not attacker.choosing]


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
    """Adversarial images of APGD in the L2 ball of `eps`, run after run for those that the defence still gets right.

    A run of `steps` from the clean image for each loss; then `restarts` runs of `restart_steps` from random starts with
    the first loss, except for an attacker whose view hangs on the clean image's hole. A step is a forward and a
    backward of that view.
    """
    sees = ATTACKERS[attacker]
    runs = [{"loss": loss, "steps": steps, "random_start": False} for loss in losses]
    if restarts and not sees.from_hole:
        runs.append({"loss": losses[0], "steps": restart_steps, "restarts": restarts, "random_start": True})
    crafted = images.clone()
    for run in runs:
        standing = torch.nonzero(batched.right(defended, crafted, labels, BATCH)).squeeze(1)
        for rows in standing.split(BATCH):
            if not len(rows):
                continue
            module = sees.build(defended, images[rows], temperature)
            crafted[rows] = apgd(
                module,
                images[rows],
                labels[rows],
                eps=eps,
                norm="l2",
                leave_early=not (sees.from_hole and _chooses(defended)),
                noise=Noise(seed, index[rows.cpu()]),
                **run,
            )
    return crafted
