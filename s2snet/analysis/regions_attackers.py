"""Attackers who know that pixels are taken out: how each sees the defence. The real defence judges what they make.

`ATTACKERS` have a name and build, for images whose hole is known, a module that an attack can differentiate. What is
bound to a batch of images (`bound`) must see all of it at every step, so none may leave early.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2snet.analysis import passes
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
    """The defence before an attacker who leaves the clean image's hole alone: its pixels stay the clean ones."""

    def __init__(self, defended: Defended, clean: Tensor, hole: Tensor):
        super().__init__()
        self.defended, self.clean, self.hole = defended, clean, hole

    def within(self, images: Tensor) -> Tensor:
        return torch.where(self.hole.bool(), self.clean, images)

    def forward(self, images: Tensor) -> Tensor:
        return self.defended(self.within(images))


class Attacker(NamedTuple):
    """How an attacker sees the defence before some images."""

    build: Callable[[Defended, Tensor, float], nn.Module]  # (defended, clean images, temperature) -> what he asks
    bound: bool = False  # to these images, in this order
    choosing: bool = False  # says something only of a defence whose hole depends on the image


ATTACKERS = {
    "recomputed": Attacker(lambda defended, clean, temperature: defended),
    "bpda": Attacker(lambda defended, clean, temperature: ROUTES["identity"].build(defended, None)),
    "soft": Attacker(
        lambda defended, clean, temperature: ROUTES["soft"].build(defended, None, temperature), choosing=True
    ),
    "fixed": Attacker(
        lambda defended, clean, temperature: Fixed(defended, defended.purifier.hole(clean)), bound=True, choosing=True
    ),
    "confined": Attacker(
        lambda defended, clean, temperature: Confined(defended, clean, defended.purifier.hole(clean)), bound=True
    ),
}


def offered(defended: Defended) -> list[str]:
    """The attackers that say something of this defence."""
    if not defended.has_purifier:
        return ["recomputed"]
    softens = getattr(defended.purifier, "softens", False)
    return [name for name, attacker in ATTACKERS.items() if softens or not attacker.choosing]


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
    temperature: float,
    seed: int,
) -> Tensor:
    """Adversarial images of APGD in the L2 ball of `eps`, loss after loss for those that the defence still gets right.

    At most `steps` forwards and backwards of what the attacker sees for each loss, and a forward to judge.
    """
    sees = ATTACKERS[attacker]
    crafted = images.clone()
    for loss in losses:
        standing = torch.nonzero(passes.right(defended, crafted, labels, BATCH)).squeeze(1)
        for rows in standing.split(BATCH):
            if not len(rows):
                continue
            module = sees.build(defended, images[rows], temperature)
            found = apgd(
                module,
                images[rows],
                labels[rows],
                eps=eps,
                norm="l2",
                steps=steps,
                loss=loss,
                random_start=False,
                leave_early=not sees.bound,
                noise=Noise(seed, index[rows.cpu()]),
            )
            crafted[rows] = module.within(found) if isinstance(module, Confined) else found
    return crafted
