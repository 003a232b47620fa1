"""Losses that an attack ascends: functions (logits [B, K], labels [B], targets [B] or None) -> [B].

With `targets` every loss rises as the logits move toward the target class, without them as they leave the
label. Logits are cast to float32 at least.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_SATURATED = 16.6  # -log of float32's resolution just below 1, 6e-8


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _hide(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.masked_fill(functional.one_hot(classes, logits.shape[1]).bool(), -torch.inf)


def _best_other(logits: Tensor, classes: Tensor) -> Tensor:
    """The highest logit of any class but the given one, [B]. Works for all-negative logits."""
    return _hide(logits, classes).amax(dim=1)


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross-entropy of the label, or minus that of the target.

    Where the label leads all others together by more than 16.6 (their odds are 6e-8), float32 rounds its
    probability to 1 and the gradient loses its direction, then itself. Below that point the loss goes on
    along its tangent: a little below 0, but with the direction that exact arithmetic would give.
    """
    logits = _wide(logits)
    classes = labels if targets is None else targets
    value = functional.cross_entropy(logits, classes, reduction="none")
    lead = _hide(logits, classes).logsumexp(dim=1) - _of(logits, classes)
    odds = math.exp(-_SATURATED)
    value = torch.where(lead < -_SATURATED, odds * (lead + _SATURATED), value)
    return value if targets is None else -value


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Best other logit minus the label's; or the target's minus the best other. Above 0 where it fools.

    Invariant under a shift of the logits (Carlini and Wagner, arXiv 1608.04644, f6).
    """
    logits = _wide(logits)
    if targets is None:
        return _best_other(logits, labels) - _of(logits, labels)
    return _of(logits, targets) - _best_other(logits, targets)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio: margin over the top logits' spread (Croce and Hein, arXiv 2003.01690).

    Invariant under shift and scale. The spread wants three classes, with targets four: with fewer the ratio
    is constant over whole regions, and the margin itself is taken.
    """
    logits = _wide(logits)
    classes = logits.shape[1]
    if classes < (3 if targets is None else 4):
        return margin(logits, labels, targets)
    top = logits.topk(min(classes, 4), dim=1).values
    if targets is None:
        return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)
    spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return (_of(logits, targets) - _of(logits, labels)) / (spread + 1e-12)


def probability_margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The margin of the softmax probabilities, in [-1, 1]."""
    return margin(_wide(logits).softmax(dim=1), labels, targets)


LOSSES = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "probability_margin": probability_margin,
}


def named(loss: str) -> Callable[..., Tensor]:
    """The loss of that name."""
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: allowed are {', '.join(LOSSES)}")
    return LOSSES[loss]


def fooled(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Bool [B]: the prediction is not the label; or it is the target. A non-finite logit is never right."""
    finite = logits.isfinite().all(dim=1)
    prediction = logits.argmax(dim=1)
    return ~finite | (prediction != labels) if targets is None else finite & (prediction == targets)


def clearly_fooled(
    logits: Tensor, labels: Tensor, targets: Tensor | None = None, kappa: float | Tensor = 0.0
) -> Tensor:
    """Bool [B]: `fooled`, by a margin of at least `kappa`."""
    finite = logits.isfinite().all(dim=1)
    enough = (margin(logits, labels, targets) >= kappa) & fooled(logits, labels, targets)
    return ~finite | enough if targets is None else finite & enough
