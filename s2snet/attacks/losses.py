"""Compute the losses that attacks maximise: functions (logits [B, K], labels [B], targets [B] or None) -> [B].

With `targets`, every loss increases as the logits move toward the target class; without, as they move away from the
label. Logits are cast to at least float32.
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
    """Return the highest logit of any class except the given one, [B]. Works for all-negative logits."""
    return _hide(logits, classes).amax(dim=1)


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of the label, or minus that of the target.

    If the label's logit exceeds the logsumexp of the others by more than 16.6 (odds of 6e-8), float32 rounds its
    probability to 1, and the gradient loses its direction and then vanishes. Beyond that point the loss continues along
    its tangent: slightly below 0, but with the gradient direction of exact arithmetic.
    """
    logits = _wide(logits)
    classes = labels if targets is None else targets
    value = functional.cross_entropy(logits, classes, reduction="none")
    lead = _hide(logits, classes).logsumexp(dim=1) - _of(logits, classes)
    odds = math.exp(-_SATURATED)
    value = torch.where(lead < -_SATURATED, odds * (lead + _SATURATED), value)
    return value if targets is None else -value


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the best other logit minus the label's, or the target's minus the best other. Positive if it fools.

    Invariant to shifts of the logits (Carlini and Wagner, arXiv 1608.04644, f6).
    """
    logits = _wide(logits)
    if targets is None:
        return _best_other(logits, labels) - _of(logits, labels)
    return _of(logits, targets) - _best_other(logits, targets)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the difference of logits ratio: margin divided by the top logits' spread (arXiv 2003.01690).

    Invariant to shifts and scaling of the logits. Needs at least 3 classes, with targets 4; with fewer the ratio is
    constant over whole regions, so the margin is returned instead.
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
    """Return the margin of the softmax probabilities, in [-1, 1]."""
    return margin(_wide(logits).softmax(dim=1), labels, targets)


LOSSES = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "probability_margin": probability_margin,
}


def named(loss: str) -> Callable[..., Tensor]:
    """Return the loss with this name."""
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: allowed are {', '.join(LOSSES)}")
    return LOSSES[loss]


def fooled(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return bool [B]: the prediction is not the label, or is the target. Non-finite logits never count as correct."""
    finite = logits.isfinite().all(dim=1)
    prediction = logits.argmax(dim=1)
    return ~finite | (prediction != labels) if targets is None else finite & (prediction == targets)


def clearly_fooled(
    logits: Tensor, labels: Tensor, targets: Tensor | None = None, kappa: float | Tensor = 0.0
) -> Tensor:
    """Return bool [B]: `fooled`, by a margin of at least `kappa`."""
    finite = logits.isfinite().all(dim=1)
    enough = (margin(logits, labels, targets) >= kappa) & fooled(logits, labels, targets)
    return ~finite | enough if targets is None else finite & enough
