"""Passes through a module in batches: logits, gradients to the input, accuracy. What every study begins with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from s2snet.attacks.losses import named

BATCH = 256
Loss = Callable[[Tensor, Tensor, None], Tensor]


@torch.no_grad()
def logits(module: Callable[[Tensor], Tensor], images: Tensor, batch: int = BATCH) -> Tensor:
    """Logits [n, K] (or whatever the module answers) for images [n, ...]. One forward each, no graph."""
    return torch.cat([module(part) for part in images.split(batch)])


def right(module: nn.Module, images: Tensor, labels: Tensor, batch: int = BATCH) -> Tensor:
    """Bool [n]: whether the highest logit is the label's. NaN logits are wrong."""
    answer = logits(module, images, batch)
    return (answer.argmax(dim=1) == labels) & answer.isfinite().all(dim=1)


def gradients(
    module: nn.Module, images: Tensor, labels: Tensor, loss: str | Loss = "cross_entropy", batch: int = BATCH
) -> Tensor:
    """The gradient of each image's own loss with respect to it, like images.

    `loss` is a name in s2snet/attacks/losses.py, or a function as those are: (logits, labels, None) -> [B].
    Exact, in the module's own mode; one forward and one backward each. ValueError where no gradient arrives.
    """
    value = named(loss) if isinstance(loss, str) else loss
    found = []
    for part, label in zip(images.split(batch), labels.split(batch), strict=True):
        x = part.detach().requires_grad_(True)
        with torch.enable_grad():
            total = value(module(x), label, None).sum()
            (gradient,) = torch.autograd.grad(total, x, allow_unused=True)
        if gradient is None:
            raise ValueError("no gradient reaches the images; the module detaches them")
        found.append(gradient.detach())
    return torch.cat(found)
