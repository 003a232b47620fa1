"""Pass images through a module in batches: logits, correct predictions, gradients to the input."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from s2snet.attacks.losses import named

BATCH = 256
Loss = Callable[[Tensor, Tensor, None], Tensor]


@torch.no_grad()
def logits(module: Callable[[Tensor], Tensor], images: Tensor, batch: int = BATCH) -> Tensor:
    """Return the logits [n, K], or other outputs of a module, of images [n, ...]. One forward each, no graph."""
    return torch.cat([module(part) for part in images.split(batch)])


def right(module: nn.Module, images: Tensor, labels: Tensor, batch: int = BATCH) -> Tensor:
    """Return Bool [n]: whether the highest logit is that of the label. NaN logits are wrong."""
    outputs = logits(module, images, batch)
    return (outputs.argmax(dim=1) == labels) & outputs.isfinite().all(dim=1)


def gradients(
    module: nn.Module, images: Tensor, labels: Tensor, loss: str | Loss = "cross_entropy", batch: int = BATCH
) -> Tensor:
    """Return the gradient of each image's own loss with respect to it, like images.

    `loss` is a name in s2snet/attacks/losses.py or a function of the same form: (logits, labels, None) -> [B].
    Exact, in the module's own mode; one forward and one backward each. ValueError if no gradient reaches the images.
    """
    value = named(loss) if isinstance(loss, str) else loss
    results = []
    for part, label in zip(images.split(batch), labels.split(batch), strict=True):
        x = part.detach().requires_grad_(True)
        with torch.enable_grad():
            total = value(module(x), label, None).sum()
            (gradient,) = torch.autograd.grad(total, x, allow_unused=True)
        if gradient is None:
            raise ValueError("no gradient reaches the images; the module detaches them")
        results.append(gradient.detach())
    return torch.cat(results)
