"""The three ways to know where to neutralise, as masks and as purifiers: one mask, one per class, one per image."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.analysis.regions.maps import PARTS, class_means, partition, random_like, shifted_like
from s2snet.attacks.losses import margin
from s2snet.models import build, freeze

MODES = ("static", "per_class", "per_input")
CONTROLS = ("random", "shifted")  # of the area of V: pixels anywhere; V moved round the image
BATCH = 64  # images before a purifier at once


@dataclass
class Knowledge:
    """What training images say of a classifier: maps [m, H, W] of importance and of attack, and the predicted classes.

    `options` are those of the purifiers that find the mask in each image; `colour` [C, 1, 1] is the data's mean.
    """

    classifier: nn.Module
    importance: Tensor
    attack: Tensor
    predicted: Tensor
    colour: Tensor
    fill: str
    width: float
    options: dict[str, Any]  # sigma, starts, eps, seed

    @property
    def classes(self) -> int:
        return self.classifier.config["classes"]

    @property
    def shape(self) -> dict[str, int]:
        return {"channels": len(self.colour), "size": self.importance.shape[-1]}

    @cached_property
    def means(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Importance and attack map for all images [1, H, W] and per class [K, H, W], as mean ranks."""
        everything = torch.zeros_like(self.predicted)
        return {
            "static": (class_means(self.importance, everything, 1), class_means(self.attack, everything, 1)),
            "per_class": tuple(
                class_means(maps, self.predicted, self.classes) for maps in (self.importance, self.attack)
            ),
        }

    def masks(self, mode: str, part: str, q: float, seed: int = 0) -> Tensor:
        """Bool [1, H, W] or [K, H, W]: a part of the partition, or a control of the area of V."""
        parts = partition(*self.means[mode], q)
        return parts[part] if part in PARTS else control(part, parts["V"], seed)

    def holes(self, mode: str, part: str, q: float, images: Tensor, maps: tuple[Tensor, Tensor], seed: int) -> Tensor:
        """Bool [n, H, W]: what is taken out of these received images, whose own `maps` are importance and attack."""
        if mode == "per_input":
            parts = partition(*maps, q)
            return parts[part] if part in PARTS else control(part, parts["V"], seed)
        masks = self.masks(mode, part, q, seed)
        if mode == "static":
            return masks.expand(len(images), -1, -1)
        return masks[batched.logits(self.classifier, images).argmax(dim=1)]

    def static(self, masks: Tensor, fill: str | None = None) -> nn.Module:
        """The purifier that takes out these masks: [1, H, W] for all images, [K, H, W] by the predicted class."""
        by_class = {"classes": len(masks), "classifier": self.classifier.config} if len(masks) > 1 else {}
        purifier = build("neutralised", **self.shape, fill=fill or self.fill, width=self.width, **by_class)
        purifier.masks.copy_(masks[:, None])
        return _with_tensors(purifier, self.classifier, self.colour)

    def per_input(self, q: float) -> nn.Module:
        """The purifier that finds V in each image it receives."""
        chosen = {"q_importance": q, "q_attack": q, "fill": self.fill, "width": self.width, **self.options}
        return per_input(self.classifier, self.colour, self.shape["size"], **chosen)


def per_input(classifier: nn.Module, colour: Tensor, size: int, **options: Any) -> nn.Module:
    """The purifier with a mask per image before this classifier, its copy inside; `options` are its own."""
    purifier = build("neutralised_per_input", classifier=classifier.config, channels=len(colour), size=size, **options)
    return _with_tensors(purifier, classifier, colour)


def _with_tensors(purifier: nn.Module, classifier: nn.Module, colour: Tensor) -> nn.Module:
    purifier.mean.copy_(colour)
    if purifier.classifier is not None:
        purifier.classifier.load_state_dict(classifier.state_dict())
    return freeze(purifier).to(colour.device)


def control(name: str, masks: Tensor, seed: int) -> Tensor:
    """Masks of the same areas as these."""
    return {"random": random_like, "shifted": shifted_like}[name](masks, seed)


@torch.no_grad()
def own_maps(purifier: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Importance and attack map [n, H, W] that a purifier with a mask per image finds in these."""
    found = [purifier.maps(part) for part in images.split(BATCH)]
    return {name: torch.cat([maps[k] for maps in found])[:, 0] for k, name in enumerate(("importance", "attack"))}


@torch.no_grad()
def margins_without(
    purifier: nn.Module, classifier: nn.Module, images: Tensor, labels: Tensor, holes: Tensor
) -> Tensor:
    """The label's logit less the best other [n], of the images with these holes [n, H, W] filled by the purifier."""
    filled = [
        purifier.filled(part, hole[:, None].to(part))[0]
        for part, hole in zip(images.split(BATCH), holes.split(BATCH), strict=True)
    ]
    return -margin(batched.logits(classifier, torch.cat(filled)), labels)
