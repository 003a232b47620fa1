"""The active test: does this evaluation's attack find an adversarial image that is known to be there?

After Zimmermann et al. (arXiv 2206.13991). At each image the defence's last linear layer is replaced by one with two
answers: no for everything that was drawn from the ball, yes for one corner of it, the plant. An attack that works
climbs there; one that gradients mislead does not, whatever it reports of the classifier itself.

Where the paper trains a readout, ours is a linear discriminant in closed form: the direction that best tells the plant
from what was drawn, with the threshold nine tenths of the way from the highest draw to the plant.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from s2snet.evaluation.probes import noised

IMAGES = 32
DRAWS = 200  # inside the ball, at its corners, and again at corners to see what chance finds
RIDGE = 0.1  # of the mean variance; far smaller ones lean on noise of wide layers, and raise hills besides the plant's
CLOSE = 0.9  # of the way from the highest draw to the plant


Plant = tuple[Tensor, Tensor, float]  # weight [d], bias, share of fresh corners on the plant's side


class Features(nn.Module):
    """What goes into the last linear layer that runs; the logits where a module has none."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        layers = [layer for layer in self.module.modules() if isinstance(layer, nn.Linear)]
        hooks = [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in layers]
        try:
            logits = self.module(images)
        finally:
            for hook in hooks:
                hook.remove()
        return (seen[-1] if seen else logits).flatten(1).double()


class Readout(nn.Module):
    """Two logits per image, [0, score]: a readout of its own for each place in the batch. Above 0: the plant's side."""

    def __init__(self, features: Features, weight: Tensor, bias: Tensor):
        super().__init__()
        self.features, self.weight, self.bias = features, weight, bias
        self.training = features.training

    def forward(self, images: Tensor) -> Tensor:
        if len(images) != len(self.bias):
            raise ValueError(f"{len(images)} images for {len(self.bias)} readouts: the attack drops images on its way")
        score = (self.features(images) * self.weight).sum(dim=1) + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1).float()


def active(
    defended: nn.Module, attacks: dict[str, tuple[nn.Module, Callable]], images: Tensor, eps: float, seed: int
) -> dict[str, Any]:
    """How many plants each attack finds, of those that can be told apart from all draws.

    `attacks`: {label: (source, attack(module, images, labels) -> adversarial)}, `eps` in linf. What was found is judged
    by the untouched module. Costs 3 x 200 forwards per image, and each attack's passes.
    """
    draw = torch.Generator().manual_seed(seed)
    features = Features(defended)
    planted = [_planted(features, image, eps, draw) for image in images]
    usable = torch.tensor([plant is not None for plant in planted])
    found: dict[str, Any] = {"images": int(usable.sum()), "asked": len(images), "eps": eps, "found": {}, "any": 0}
    planted = [plant for plant in planted if plant is not None]
    if not planted:
        return found | {"by_chance": 0.0}
    weight, bias = (torch.stack([plant[part] for plant in planted]) for part in (0, 1))
    few = images[usable.to(images.device)]
    labels = torch.zeros(len(few), dtype=torch.int64, device=few.device)
    anyone = torch.zeros(len(few), dtype=torch.bool)
    for label, (source, attack) in attacks.items():
        adversarial = attack(Readout(Features(source), weight, bias), few, labels)
        with torch.no_grad():
            reached = Readout(features, weight, bias)(adversarial).argmax(dim=1).bool().cpu()
        found["found"][label] = int(reached.sum())
        anyone |= reached
    return found | {"any": int(anyone.sum()), "by_chance": sum(plant[2] for plant in planted) / len(planted)}


def _planted(
    features: Features, image: Tensor, eps: float, draw: torch.Generator
) -> tuple[Tensor, Tensor, float] | None:
    """(weight [d], bias, share of fresh corners on the plant's side); None where no line tells the plant apart."""
    around, corners = image.expand(DRAWS, *image.shape), image.expand(1 + DRAWS, *image.shape)
    with torch.no_grad():
        drawn = torch.cat([image[None], noised(around, eps / 2, draw), noised(around, eps, draw, corners=True)])
        drawn = features(drawn)
        plant, fresh = features(noised(corners, eps, draw, corners=True)).split([1, DRAWS])
    if not (drawn.isfinite().all() and plant.isfinite().all()):
        return None
    centre = drawn.mean(dim=0)
    spread, offset = drawn - centre, (plant[0] - centre)
    # (C + r I)^-1 offset by Woodbury: as many equations as draws, however wide the layer is
    ridge = len(drawn) * RIDGE * spread.square().mean().clamp(min=1e-30)
    inner = spread @ spread.T + ridge * torch.eye(len(drawn)).to(spread)
    weight = offset - spread.T @ torch.linalg.solve(inner, spread @ offset)
    top, reached = (drawn @ weight).max(), plant[0] @ weight
    gap = reached - top
    if not gap > 1e-9 * reached.abs():
        return None
    weight, bias = weight / gap, -(top + CLOSE * gap) / gap
    return weight, bias, float((fresh @ weight + bias > 0).double().mean())
