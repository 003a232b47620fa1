"""The paper's attack: one sign step that is not cut to the range of pixels; and what networks say of the result.

`s2snet.attacks.fgsm` keeps images in [0, 1], as an attack on pictures must. The paper states no clipping, so numbers
beside its own come from here; after `.clamp(0, 1)` the result is that of `fgsm`, which a test holds.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.analysis.batched import BATCH
from s2snet.analysis.linearity.nets import Net


def direction(cost: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, batch: int = BATCH) -> Tensor:
    """sign of the gradient of `cost(images, labels)` [B] to the images, like images; sign(0) is 0.

    In the modes that the network is in. One forward and one backward each.
    """
    found = []
    for part, label in zip(images.split(batch), labels.split(batch), strict=True):
        x = part.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(cost(x, label).sum(), x)
        found.append(gradient.sign())
    return torch.cat(found)


def sign_step(net: Net, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """images + eps sign(gradient of the net's own cost), not clipped (arXiv 1412.6572, section 4)."""
    return images.detach() + eps * direction(net.cost, images, labels)


@torch.no_grad()
def probabilities(net: Net, images: Tensor, batch: int = BATCH) -> Tensor:
    """The net's probabilities [n, K]. One forward each."""
    return torch.cat([net.probabilities(part) for part in images.split(batch)])


def errors(net: Net, images: Tensor, labels: Tensor) -> Tensor:
    """Bool [n]: the likeliest class is not the label."""
    return probabilities(net, images).argmax(dim=1) != labels
