"""Purifiers that replace pixels which an attack favours and the classifier does not need (after arXiv 2011.10794).

That region is V: the pixels an attack favours (region of attack) minus those the classifier relies on (region of
importance). `Neutralised` has fixed masks, computed from training images; `NeutralisedPerInput` computes V for each
image it receives, with a copy of the classifier inside. The definitions are this project's own (models/regions.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from s2snet.config.choices import choose, nearest
from s2snet.models.defended import freeze
from s2snet.models.fills import FILLS
from s2snet.models.regions import attack_map, gradient_x_input, smooth, soft_top, top


class _Neutralising(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> the same with the pixels of `hole` filled; the others are unchanged.

    The backward pass treats the hole as a constant; `soft` differentiates it too.
    """

    def __init__(self, channels: int, size: int, fill: str, width: float, classifier: Mapping[str, Any] | None):
        super().__init__()
        choose("fill", fill, FILLS)
        if not width > 0:
            raise ValueError(f"width={width}: expected a blur of more than 0 pixels")
        self.shape, self.fill, self.width = (channels, size, size), fill, width
        self.classifier = None if classifier is None else _build(classifier)
        self.register_buffer("mean", torch.full((channels, 1, 1), 0.5))  # of the data, for fill=mean

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode, except for the classifier inside: its statistics determine the hole and must not change."""
        super().train(mode)
        if self.classifier is not None:
            self.classifier.eval()
        return self

    def hole(self, images: Tensor) -> Tensor:
        """Return [B, 1, H, W] of ones, at the pixels to replace, and zeros; without a graph."""
        raise NotImplementedError

    def soft_hole(self, images: Tensor, temperature: float) -> Tensor:
        """Return the hole [B, 1, H, W] as a differentiable function of the images, in [0, 1]."""
        raise NotImplementedError

    def filled(self, images: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images with that hole filled, and the fill of every pixel."""
        content = FILLS[self.fill](images, hole, self.mean, self.width)
        return torch.where(hole.bool(), content, images), content

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        return self.filled(images, self.hole(images))[0]

    def soft(self, images: Tensor, temperature: float) -> Tensor:
        """Return the same output bit for bit, differentiated as if the hole were `soft_hole`.

        The gradient has a second term for the change of the hole: its derivative times (fill - image). This project's
        own, for attackers who know how the hole is computed.
        """
        self._check(images)
        purified, content = self.filled(images, self.hole(images))
        moving = self.soft_hole(images, temperature)
        return purified + (moving - moving.detach()) * (content - images).detach()

    def _check(self, images: Tensor) -> None:
        if images.shape[1:] != self.shape:
            expected, given = (" x ".join(map(str, shape)) for shape in (self.shape, images.shape[1:]))
            raise ValueError(f"wrong shape for a neutralising purifier: expected images of {expected}, got {given}")


class Neutralised(_Neutralising):
    """A purifier with fixed `masks` [K, 1, H, W], initially zeros: one for all images, or one per class.

    With `classes` the mask is that of the class which `classifier` predicts for the received, possibly adversarial,
    image; this costs a forward of it. `classifier` is a config as `models.build` leaves it; its tensors are saved with
    the weights.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 32,
        fill: str = "inpaint",
        width: float = 2.0,  # of the blur in pixels, for fill=blur
        classes: int | None = None,
        classifier: Mapping[str, Any] | None = None,
    ):
        super().__init__(channels, size, fill, width, classifier)
        if (classes is None) != (classifier is None):
            given = "no classifier" if classifier is None else "a classifier"
            raise ValueError(f"classes={classes} and {given}: masks per class need both, a single mask neither")
        self.register_buffer("masks", torch.zeros(classes or 1, 1, size, size))

    @property
    def softens(self) -> bool:
        """Return whether the hole depends on the image, so that `soft` has another gradient than a plain pass."""
        return self.classifier is not None

    def hole(self, images: Tensor) -> Tensor:
        if self.classifier is None:
            return self.masks.expand(len(images), -1, -1, -1)
        with torch.no_grad():
            return self.masks[self.classifier(images).argmax(dim=1)]

    def soft_hole(self, images: Tensor, temperature: float) -> Tensor:
        """Return the mean of the masks, weighted by softmax(logits / temperature)."""
        if self.classifier is None:
            return self.hole(images)
        shares = (self.classifier(images) / temperature).softmax(dim=1)
        return (shares @ self.masks.flatten(1)).unflatten(1, self.masks.shape[1:])


class NeutralisedPerInput(_Neutralising):
    """A purifier whose hole is V of the received image: the share `q_attack` of its pixels that an attack would favour,
    minus the share `q_importance` that the predicted class depends on most.

    Importance is |gradient x input|. The attack map runs no attack: it averages gradients over `starts` fixed random
    starts within `eps`. Both are smoothed by `sigma` pixels. `classifier` is a config as `models.build` leaves it; its
    tensors are saved with the weights. Costs 2 + starts forwards and 1 + starts backwards of it, under a caller's
    no_grad too; the images' own graph goes through the fill only.
    """

    softens = True

    def __init__(
        self,
        classifier: Mapping[str, Any],
        channels: int = 1,
        size: int = 32,
        q_importance: float = 0.2,
        q_attack: float = 0.2,
        sigma: float = 1.0,
        starts: int = 2,
        eps: float = 8 / 255,
        fill: str = "inpaint",
        width: float = 2.0,  # of the blur in pixels, for fill=blur
        seed: int = 0,  # of the starts
    ):
        super().__init__(channels, size, fill, width, classifier)
        for name, q in (("q_importance", q_importance), ("q_attack", q_attack)):
            if not 0 < q < 1:
                raise ValueError(f"{name}={q}: expected a share of the pixels, above 0 and below 1")
        if starts < 1:
            raise ValueError(f"starts={starts}: expected at least 1")
        self.q_importance, self.q_attack, self.sigma = q_importance, q_attack, sigma
        drawn = torch.rand((starts, *self.shape), generator=torch.Generator().manual_seed(seed))
        self.register_buffer("starts", (2 * drawn - 1) * eps)

    def maps(self, images: Tensor, graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return importance and attack map [B, 1, H, W], smoothed; with `graph` differentiable in the images."""
        with torch.inference_mode(False), torch.enable_grad():
            x = images if graph and images.requires_grad else images.detach().clone().requires_grad_()
            predicted = self.classifier(x.detach()).argmax(dim=1)
            importance = gradient_x_input(self.classifier, x, predicted, graph)
            attack = attack_map(self.classifier, x, predicted, self.starts, graph)
            maps = smooth(importance, self.sigma), smooth(attack, self.sigma)
        return maps if graph else (maps[0].detach(), maps[1].detach())

    def hole(self, images: Tensor) -> Tensor:
        importance, attack = self.maps(images)
        return (top(attack, self.q_attack) & ~top(importance, self.q_importance)).to(images.dtype)

    def soft_hole(self, images: Tensor, temperature: float) -> Tensor:
        """Return the product of both regions as sigmoids, each `temperature` standard deviations of its map wide."""
        importance, attack = self.maps(images, graph=True)
        outside = 1 - soft_top(importance, self.q_importance, temperature)
        return soft_top(attack, self.q_attack, temperature) * outside


def _build(classifier: Mapping[str, Any]) -> nn.Module:
    """Build the classifier of that config and freeze it."""
    from s2snet.models import CLASSIFIERS, build  # not at the top: it imports this file

    name = classifier.get("name")
    if name not in CLASSIFIERS:
        raise ValueError(f"classifier.name={name}{nearest(name, CLASSIFIERS)}: allowed are {', '.join(CLASSIFIERS)}")
    return freeze(build(**classifier))
