"""Probes of a defence's answers: their kind, whether they repeat, and what a forward pass does."""

from typing import Any

import torch
from torch import Tensor, nn

from s2snet.audit.probes.passes import digest, gradient, logits_of, relative_difference, share
from s2snet.models import Defended

SATURATED = 16.6  # lead of a logit from which float32 cross-entropy loses its direction
LOST = 80.0  # lead of a logit from which the gradient of float32 cross-entropy is 0
TIE = 1e-4  # of the largest logit: closer than this, the first two logits are a near tie


def head(defended: nn.Module, images: Tensor) -> dict[str, Any]:
    """Return whether the answers are probabilities, log-probabilities or logits, and how far the largest leads."""
    logits = logits_of(defended, images)
    top = logits.topk(2, dim=1).values
    lead = top[:, 0] - top[:, 1]
    return {
        "probabilities": bool(((logits >= 0) & (logits <= 1)).all() and (logits.sum(dim=1) - 1).abs().max() < 1e-4),
        "log_probabilities": bool(logits.logsumexp(dim=1).abs().max() < 1e-4),
        "lead_median": float(lead.median()),
        "saturated": share(lead > SATURATED),
        "lost": share(lead > LOST),
    }


def randomness(defended: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the largest relative difference among five answers, and between two gradients, to the same images."""
    answers = [logits_of(defended, images) for _ in range(5)]
    slopes = [gradient(defended, images, labels) for _ in range(2)]
    return {
        "logits": max(relative_difference(answer, answers[0]) for answer in answers[1:]),
        "gradients": 0.0 if None in (slopes[0], slopes[1]) else relative_difference(slopes[1], slopes[0]),
    }


def state(defended: nn.Module, images: Tensor) -> dict[str, Any]:
    """Find layers in training mode, buffers that a forward writes, and answers that depend on the batch or on order."""
    training = [
        f"{name} ({type(layer).__name__})"
        for name, layer in defended.named_modules()
        if layer.training and isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
    ]
    before = {name: digest(buffer) for name, buffer in defended.named_buffers()}
    part = images[: max(1, len(images) // 2)]
    first = logits_of(defended, part)
    logits_of(defended, images.flip(0))
    again = logits_of(defended, part)
    alone = torch.cat([logits_of(defended, image[None]) for image in part])
    together = logits_of(defended, images)[: len(part)]
    after = {name: digest(buffer) for name, buffer in defended.named_buffers()}
    return {
        "training": training[:5],
        "buffers_written": [name for name in before if before[name] != after.get(name)][:5],
        "order": relative_difference(again, first),
        "batch": max(relative_difference(alone, first), relative_difference(together, first)),
    }


def inner_passes(defended: nn.Module, images: Tensor) -> dict[str, Any]:
    """Count gradients that a forward pass takes itself, and name layers with weights that it calls more than once."""
    calls: dict[str, int] = {}
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls.get(name, 0) + 1))
        for name, layer in defended.named_modules()
        if not list(layer.children()) and list(layer.parameters())
    ]
    count = 0
    real_grad, real_backward = torch.autograd.grad, torch.autograd.backward

    def counted(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            return function(*arguments, **options)

        return call

    torch.autograd.grad, torch.autograd.backward = counted(real_grad), counted(real_backward)
    try:
        with torch.enable_grad():
            defended(images[:2])
    finally:
        torch.autograd.grad, torch.autograd.backward = real_grad, real_backward
        for hook in hooks:
            hook.remove()
    return {"autograd_calls": count, "called_again": [name for name, times in calls.items() if times > 1][:5]}


def displacement(defended: Defended, images: Tensor) -> dict[str, float]:
    """Return how far the purifier moves a clean image: the median of ||A(x) - x||_2 / ||x||_2, NaN left out."""
    with torch.no_grad():
        purified = defended.purifier(images)
    length = images.flatten(1).norm(dim=1).clamp(min=1e-12)
    return {"median": float(((purified - images).flatten(1).norm(dim=1) / length).nanmedian())}


def recomputed(defended: nn.Module, adversarial: Tensor, predictions: Tensor) -> dict[str, int]:
    """Count predictions that differ when stored images are judged again, in one batch and one by one.

    Two forward passes per image. A difference at a near tie of the first two logits is counted as one of `ties`.
    """
    differ, ties = torch.zeros(len(adversarial), dtype=torch.bool), torch.zeros(len(adversarial), dtype=torch.bool)
    alone = torch.cat([logits_of(defended, image[None]) for image in adversarial])
    for logits in (logits_of(defended, adversarial), alone):
        finite = logits.isfinite().all(dim=1)
        prediction = torch.where(finite, logits.argmax(dim=1), -1).cpu()
        first, second = logits.topk(2, dim=1).values.unbind(dim=1)
        differ |= prediction != predictions
        ties |= ((first - second) < TIE * logits.abs().amax(dim=1)).cpu()
    return {"images": len(adversarial), "differ": int((differ & ~ties).sum()), "ties": int((differ & ties).sum())}
