"""What is measured along directions and in subspaces: scores, labels, universal perturbations, confined attacks."""

import torch
from torch import Tensor, nn

from s2snet.analysis.batched import BATCH, logits
from s2snet.attacks import deepfool
from s2snet.models import Subspace, build


def traced_logits(model: nn.Module, images: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
    """Logits [len(lengths), B, K] at images + s * direction, unclipped, for a unit `direction` of an image's size."""
    way = direction.to(images).view(1, *images.shape[1:])
    return torch.stack([logits(model, images + float(s) * way) for s in lengths])


def free(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """DeepFool's l2 perturbations [B, C, H, W], untargeted; 0 where it fails. `labels` are the model's own."""
    return deepfool(model, images, labels) - images


def universal(model: nn.Module, images: Tensor, labels: Tensor, norm: float, steps: int = 20) -> Tensor:
    """One perturbation [C, H, W] of l2 length `norm` against all images, by projected gradient steps of falling length.

    It pulls at the images whose label still leads; 0 where none of them has a gradient. Deterministic; `steps`
    forwards and backwards per image.
    """
    delta = torch.zeros_like(images[0])
    for step in range(steps):
        gradient = torch.zeros_like(delta)
        for some, label in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            x = delta.clone().requires_grad_(True)
            with torch.enable_grad():
                answer = model(some + x)
                own = answer.gather(1, label[:, None])[:, 0]
                lead = own - answer.scatter(1, label[:, None], -torch.inf).amax(dim=1)
                gradient -= torch.autograd.grad(lead.clamp(min=0).sum(), x)[0]
        if gradient.norm() == 0:
            break
        delta = delta + norm * (1 - step / steps) * gradient / gradient.norm()
        delta = norm * delta / delta.norm()
    return delta


def changed(model: nn.Module, images: Tensor, labels: Tensor, shift: Tensor) -> Tensor:
    """Bool [B]: whose label a constant shift changes, unclipped."""
    return logits(model, images + shift.to(images).view(1, *images.shape[1:])).argmax(dim=1) != labels


def projector(basis: Tensor, images: Tensor) -> Subspace:
    """The purifier that projects onto the basis [n, d] and restores the mean of what it takes from `images`."""
    _, channels, _, size = images.shape
    module = build("subspace", channels=channels, size=size, dimensions=basis.shape[1])
    return module.to(images).set(basis.to(images), images).eval()


def confined(model: nn.Module, images: Tensor, labels: Tensor, basis: Tensor, steps: int) -> Tensor:
    """The l2 length of DeepFool's perturbation inside the subspace, unclipped, float64 [B]; inf where it fails."""
    moved = deepfool(model, images, labels, subspace=basis.to(images), box=False, steps=steps)
    length = (moved.double() - images.double()).flatten(1).norm(dim=1)
    return torch.where(length > 0, length, torch.inf)
