"""The active test: does the evaluation's attack find an adversarial image that is known to exist?

After Zimmermann et al. (arXiv 2206.13991). For each image, the defence's last linear layer is replaced by a readout
with two answers: no for every point that was drawn from the ball, yes for one corner of it, the plant. A working attack
climbs to the plant; an attack that follows misleading gradients does not, whatever accuracy it reports.

The paper trains its readout. Ours is a linear discriminant in closed form: the direction that best separates the plant
from the draws, with the threshold nine tenths of the way from the highest draw to the plant.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from s2snet.audit.probes.passes import random_points

IMAGES = 32
DRAWS = 200  # inside the ball, as many at its corners, and as many corners again for the rate of chance finds
RIDGE = 0.1  # of the mean variance; much smaller values fit the noise of wide layers and raise other hills
THRESHOLD = 0.9  # of the way from the highest draw to the plant

Plant = tuple[Tensor, Tensor, float]  # weight [d], bias, share of fresh corners on the plant's side


class Features(nn.Module):
    """The input of the last linear layer that runs, float64 [B, d]; the logits if the module has no linear layer."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        inputs: list[Tensor] = []
        layers = [layer for layer in self.module.modules() if isinstance(layer, nn.Linear)]
        hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in layers]
        try:
            logits = self.module(images)
        finally:
            for hook in hooks:
                hook.remove()
        return (inputs[-1] if inputs else logits).flatten(1).double()


class Readout(nn.Module):
    """Two logits per image, [0, score], with a readout of its own for each image of the batch. Above 0: the plant."""

    def __init__(self, features: Features, weight: Tensor, bias: Tensor):
        super().__init__()
        self.features, self.weight, self.bias = features, weight, bias
        self.training = features.training

    def forward(self, images: Tensor) -> Tensor:
        if len(images) != len(self.bias):
            raise ValueError(f"{len(images)} images for {len(self.bias)} readouts: the attack dropped images")
        score = (self.features(images) * self.weight).sum(dim=1) + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1).float()


def active(
    defended: nn.Module, attacks: dict[str, tuple[nn.Module, Callable]], images: Tensor, eps: float, seed: int
) -> dict[str, Any]:
    """Count the plants that each attack finds, among those that can be separated from all draws.

    `attacks`: {label: (source, attack(module, images, labels) -> adversarial)}, `eps` in linf. The untouched module
    judges what was found. Costs 3 x 200 forward passes per image, and the passes of each attack.
    """
    draw = torch.Generator().manual_seed(seed)
    features = Features(defended)
    plants = [_plant(features, image, eps, draw) for image in images]
    usable = torch.tensor([plant is not None for plant in plants])
    counts: dict[str, Any] = {"images": int(usable.sum()), "asked": len(images), "eps": eps, "found": {}, "any": 0}
    plants = [plant for plant in plants if plant is not None]
    if not plants:
        return counts | {"by_chance": 0.0}
    weight, bias = (torch.stack([plant[part] for plant in plants]) for part in (0, 1))
    few = images[usable.to(images.device)]
    labels = torch.zeros(len(few), dtype=torch.int64, device=few.device)
    reached_by_any = torch.zeros(len(few), dtype=torch.bool)
    for label, (source, attack) in attacks.items():
        adversarial = attack(Readout(Features(source), weight, bias), few, labels)
        with torch.no_grad():
            reached = Readout(features, weight, bias)(adversarial).argmax(dim=1).bool().cpu()
        counts["found"][label] = int(reached.sum())
        reached_by_any |= reached
    by_chance = sum(plant[2] for plant in plants) / len(plants)
    return counts | {"any": int(reached_by_any.sum()), "by_chance": by_chance}


def _plant(features: Features, image: Tensor, eps: float, draw: torch.Generator) -> Plant | None:
    """Return a plant in the ball around one image, or None if no linear readout separates it from the draws."""
    around, corners = image.expand(DRAWS, *image.shape), image.expand(1 + DRAWS, *image.shape)
    with torch.no_grad():
        inside = random_points(around, eps / 2, draw)
        drawn = features(torch.cat([image[None], inside, random_points(around, eps, draw, corners=True)]))
        plant, fresh = features(random_points(corners, eps, draw, corners=True)).split([1, DRAWS])
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
    weight, bias = weight / gap, -(top + THRESHOLD * gap) / gap
    return weight, bias, float((fresh @ weight + bias > 0).double().mean())
