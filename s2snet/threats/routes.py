"""Define routes: how gradients pass through a purifier. The forward value is always the real one, bit for bit.

A route builds a source from a defended module. To add one, write a function and a line in ROUTES. Which route is most
effective against a purifier cannot be known beforehand: an evaluation runs all and takes the minimum per image.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2snet.models import Defended


class Route(NamedTuple):
    """A function that builds a source, and the defences that it is offered for."""

    build: Callable[..., nn.Module]  # (defended, surrogate, **options) -> source
    offered: Callable[[Defended, bool], bool]  # (defended, True if it answers at random)
    options: tuple[str, ...] = ()  # fields of the Threat; they become part of the key
    surrogate: str | None = None  # a name in SURROGATES: a network to fit to the purifier first


def exact(defended: Defended, surrogate: None) -> nn.Module:
    """Differentiate the defended module end to end."""
    return defended


class _StraightThrough(torch.autograd.Function):
    """Forward: the purified images. Backward: the gradient of the images."""

    @staticmethod
    def forward(ctx, images: Tensor, purified: Tensor) -> Tensor:
        return purified.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Through(nn.Module):
    """A defended module that is differentiated as if `stand_in` were its purifier."""

    def __init__(self, defended: Defended, stand_in: Callable[[Tensor], Tensor]):
        super().__init__()
        self.defended, self.stand_in = defended, stand_in

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            purified = self.defended.purifier(images)
        return self.defended.classifier(_StraightThrough.apply(self.stand_in(images), purified))


def identity(defended: Defended, surrogate: None) -> nn.Module:
    """Use BPDA with the identity (Athalye et al., arXiv 1802.00420, section 4.1), for purifiers near the identity.

    Saves the purifier's backward pass.
    """
    return Through(defended, nn.Identity())


def fitted(defended: Defended, surrogate: nn.Module, fit_steps: int) -> nn.Module:
    """Use BPDA with a network fitted to the purifier on training images (threats/surrogates.py)."""
    return Through(defended, surrogate)


class Soft(nn.Module):
    """A defended module whose purifier's choices (pooling indices, a mask) are differentiated as soft ones."""

    def __init__(self, defended: Defended, temperature: float):
        super().__init__()
        self.defended, self.temperature = defended, temperature

    def forward(self, images: Tensor) -> Tensor:
        return self.defended.classifier(self.defended.purifier.soft(images, self.temperature))


def soft(defended: Defended, surrogate: None, temperature: float) -> nn.Module:
    """Use exact gradients plus the effect of changing pooling indices or masks (`soft` of the purifier)."""
    return Soft(defended, temperature)


class _MeanJacobian(torch.autograd.Function):
    """Forward: the module's logits. Backward: the mean of its exact backward passes around the images."""

    @staticmethod
    def forward(ctx, images: Tensor, module: nn.Module, noise: Tensor) -> Tensor:
        ctx.module, ctx.noise = module, noise
        ctx.save_for_backward(images)
        return module(images)

    @staticmethod
    def backward(ctx, cotangent: Tensor) -> tuple[Tensor, None, None]:
        (images,) = ctx.saved_tensors
        total = torch.zeros_like(images)
        for shift in ctx.noise:
            with torch.enable_grad():
                near = (images + shift).requires_grad_(True)
                total += torch.autograd.grad(ctx.module(near), near, cotangent)[0]
        return total / len(ctx.noise), None, None


class Smoothed(nn.Module):
    """A defended module whose backward pass is the mean over draws of noise around the image.

    The draws are the same for every image and step, in pairs of opposite sign: the source is deterministic, an image's
    result does not depend on the others, and the mean has no drift. One backward costs `draws_per_backward` passes.
    """

    def __init__(self, defended: Defended, smoothing: float, draws: int):
        super().__init__()
        self.defended, self.smoothing = defended, smoothing
        self.draws_per_backward = max(2, draws + draws % 2)

    def forward(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        half = torch.randn((self.draws_per_backward // 2, *images.shape[1:]), generator=generator)
        noise = torch.cat([half, -half]).to(images) * self.smoothing
        return _MeanJacobian.apply(images, self.defended, noise)


def smoothed(defended: Defended, surrogate: None, smoothing: float, draws: int) -> nn.Module:
    """Use the mean of exact gradients over Gaussian noise of standard deviation `smoothing` pixels, to smooth kinks."""
    return Smoothed(defended, smoothing, draws)


def eot(defended: Defended, surrogate: None, draws: int) -> nn.Module:
    """Use expectation over transformation (arXiv 1707.07397): the attack itself averages over its option `draws`."""
    return defended


def _always(defended: Defended, random: bool) -> bool:
    return True


def _with_purifier(defended: Defended, random: bool) -> bool:
    return defended.has_purifier


def _with_choices(defended: Defended, random: bool) -> bool:
    return getattr(defended.purifier, "softens", False)


def _at_random(defended: Defended, random: bool) -> bool:
    return random


ROUTES = {
    "exact": Route(exact, _always),
    "identity": Route(identity, _with_purifier),
    "soft": Route(soft, _with_choices, ("temperature",)),
    "learned": Route(fitted, _with_purifier, ("fit_steps",), "learned"),
    "affine": Route(fitted, _with_purifier, ("fit_steps",), "affine"),
    "smoothed": Route(smoothed, _with_purifier, ("smoothing", "draws")),
    "eot": Route(eot, _at_random, ("draws",)),
}
