"""Probes that attack: random noise, stronger attacks than those of the evaluation, and a control to compare with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet import models
from s2snet.attacks import Noise, apgd, pgd
from s2snet.attacks.losses import fooled
from s2snet.audit.probes.passes import logits_of, random_points, share
from s2snet.models import Defended

DRAWS = 60  # of noise, half uniform, half corners of the ball


def noise(defended: nn.Module, images: Tensor, labels: Tensor, index: Tensor, eps: float, seed: int) -> dict[str, Any]:
    """Return which images any of 60 random points of the ball fools; half uniform, half corners. 60 forwards each."""
    draw = torch.Generator().manual_seed(seed)
    any_fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for number in range(DRAWS if len(images) else 0):
        points = random_points(images, eps, draw, corners=number % 2 == 1)
        any_fooled |= fooled(logits_of(defended, points), labels)
    return {"draws": DRAWS, "eps": eps, "images": index.tolist(), "fooled": index[any_fooled.cpu()].tolist()}


def stronger(
    defended: nn.Module,
    sources: dict[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    withstood: Tensor,
    eps: float,
    seed: int,
) -> dict[str, Any]:
    """Return which images stronger attacks on `sources` fool: more steps, another loss, more restarts, other radii.

    The first three attack the images that `withstood` the evaluation (bool [B]): about 840 passes per image and source.
    The others, PGD on the margin at five radii and at radius 1, attack all images: 480 passes through the exact source.
    """
    # Another seed than the evaluation's, for restarts that it has not tried.
    common = {"norm": "linf", "noise": Noise(seed + 1, index)}
    places = torch.nonzero(withstood).squeeze(1).to(images.device)
    few, few_labels, few_index = images[places], labels[places], index[withstood]
    on_few = common | {"noise": Noise(seed + 1, few_index)}

    def withstand(adversarial: Tensor, labels: Tensor) -> Tensor:
        return ~fooled(logits_of(defended, adversarial), labels).cpu()

    attacks = {
        "doubled steps": lambda source: apgd(source, few, few_labels, eps=eps, steps=200, **on_few),
        "margin": lambda source: apgd(source, few, few_labels, eps=eps, steps=100, loss="margin", **on_few),
        "restarts": lambda source: pgd(source, few, few_labels, eps=eps, steps=40, restarts=3, **on_few),
    }
    newly_fooled = {
        f"{route} {name}": few_index[~withstand(attack(source), few_labels)].tolist() if len(few) else []
        for route, source in sources.items()
        for name, attack in attacks.items()
    }
    exact = next(iter(sources.values()))

    def accuracy(radius: float, **options: Any) -> float:
        adversarial = pgd(exact, images, labels, eps=radius, loss="margin", **options, **common)
        return float(withstand(adversarial, labels).double().mean())

    return {
        "images": index.tolist(),
        "eps": eps,
        "fooled": newly_fooled,
        "curve": {repr(eps * factor): accuracy(min(eps * factor, 1.0), steps=40) for factor in (0.25, 0.5, 1, 2, 4)},
        "eps_one": accuracy(1.0, steps=40, step_size=1 / 16),
    }


def identity_control(
    defended: Defended,
    batches: Callable[[Tensor], Tensor],
    count: int,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    eps: float,
    seed: int,
    steps: int = 300,
) -> dict[str, Any]:
    """Return the accuracy under PGD-40 of the defence, and of a control with a purifier that only copies its input.

    The control's purifier is built from the defence's config and trained to reproduce the training images,
    `batches(places)` of `count`, without the classifier. Its robustness comes from the architecture alone.
    """
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # inside `untouched`, which restores the generator
    purifier = models.build(**defended.purifier.config).to(images.device).train()
    with torch.enable_grad():
        optimiser = torch.optim.Adam(purifier.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            batch = batches(torch.randint(count, (min(32, count),), generator=draw)).to(images.device)
            optimiser.zero_grad()
            functional.mse_loss(purifier(batch), batch).backward()
            optimiser.step()
            schedule.step()
    accuracy: dict[str, Any] = {"images": len(images), "eps": eps, "clean": {}, "left": {}}
    for name, module in (("defence", defended), ("control", Defended(purifier.eval(), defended.classifier))):
        adversarial = pgd(
            module, images, labels, eps=eps, norm="linf", steps=40, loss="margin", noise=Noise(seed, index)
        )
        for kind, points in (("clean", images), ("left", adversarial)):
            accuracy[kind][name] = 1 - share(fooled(logits_of(module, points), labels))
    return accuracy
