"""Evaluate losses and their gradients with respect to the images, count passes, and keep the best iterates."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks.losses import fooled, named


class Passes:
    """Number of forward and backward passes per image of a batch, filled by an attack."""

    def __init__(self, batch: int):
        self.forwards = torch.zeros(batch, dtype=torch.int32)
        self.backwards = torch.zeros(batch, dtype=torch.int32)


class Objective:
    """The loss of a model on the images of one batch, with its gradient.

    In all methods, `x` [b, ...] are images and `rows` [b] their positions in the batch. Logits, losses and gradients
    are means over `draws` passes, made one at a time, for models with random outputs. `loss_targets` are the classes
    that the loss pulls toward; whether an image fools depends on labels and targets only. `logits` are those of the
    last evaluation.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        labels: Tensor,
        targets: Tensor | None,
        loss: str,
        draws: int = 1,
        passes: Passes | None = None,
    ):
        self.model, self.labels, self.targets, self.loss, self.draws = (
            model,
            labels,
            targets,
            named(loss),
            draws,
        )
        self.passes = Passes(len(labels)) if passes is None else passes
        if len(self.passes.forwards) != len(labels):
            raise ValueError(f"passes: expected {len(labels)} images, as in the batch, got {len(self.passes.forwards)}")
        self.loss_targets: Tensor | None = targets
        self.logits: Tensor | None = None

    def classes(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the labels and targets of these rows."""
        return self.labels[rows], None if self.targets is None else self.targets[rows]

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the model's logits for `x`, validated: one forward, with a graph if `x` requires a gradient."""
        # a copy, so that a model with in-place operations cannot modify the images
        logits = self.model(x.clone())
        if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
            raise ValueError(
                f"model: expected logits [B, K] with B = {len(x)} and K > 1, got shape {tuple(logits.shape)}"
            )
        for name, classes in zip(("label", "target"), self.classes(rows), strict=True):
            if classes is not None and len(classes) and not 0 <= classes.min() <= classes.max() < logits.shape[1]:
                raise ValueError(
                    f"{name}s: expected 0 to {logits.shape[1] - 1}, as the model has {logits.shape[1]} classes, "
                    f"got {classes.min()} to {classes.max()}"
                )
        self.passes.forwards[rows.cpu()] += 1
        return logits

    def backward(self, values: Tensor, x: Tensor, rows: Tensor, keep_graph: bool = False) -> Tensor:
        """Return the gradient of `values.sum()` with respect to `x`: one backward. Non-finite entries become 0."""
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), x, retain_graph=keep_graph, allow_unused=True)
        if gradient is None:
            raise ValueError(
                "no gradient reaches the images: the model detaches them (a stage-2 model does so in training mode; "
                "call .eval()) or is not differentiable (choose a differentiable route)"
            )
        self.passes.backwards[rows.cpu()] += 1
        return gradient.nan_to_num(0, 0, 0)

    def gradient(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (fools [b], loss [b], gradient like x). Costs `draws` forwards and backwards."""
        total = [0, 0, 0]
        for _ in range(self.draws):
            x = x.detach().requires_grad_(True)
            logits = self.forward(x, rows)
            values = self._loss(logits, rows)
            gradient = self.backward(values, x, rows)
            total = [a + b.detach() for a, b in zip(total, (logits, values, gradient), strict=True)]
        self.logits, values, gradient = (item / self.draws for item in total)
        return fooled(self.logits, *self.classes(rows)), values, gradient

    def evaluate(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (fools [b], loss [b]). Costs `draws` forwards, without a graph."""
        total = [0, 0]
        with torch.no_grad():
            for _ in range(self.draws):
                logits = self.forward(x, rows)
                total = [a + b for a, b in zip(total, (logits, self._loss(logits, rows)), strict=True)]
        self.logits, values = (item / self.draws for item in total)
        return fooled(self.logits, *self.classes(rows)), values

    def _loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        return self.loss(logits, self.labels[rows], None if self.loss_targets is None else self.loss_targets[rows])


class Best:
    """The best iterate of each image so far: a fooling one if any, then the one with the highest loss."""

    def __init__(self, images: Tensor):
        self.images = images.clone()
        self.fools = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.loss = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)

    def update(self, rows: Tensor, x: Tensor, fools: Tensor, loss: Tensor) -> None:
        """Replace the best iterates of these rows by `x` [b, ...] if they are better."""
        # A NaN loss comes from NaN logits, which count as fooled: rank it highest.
        loss = loss.double().nan_to_num(torch.inf, torch.inf, -torch.inf)
        before = self.fools[rows]
        better = (fools & ~before) | ((fools == before) & (loss > self.loss[rows]))
        chosen = rows[better]
        self.images[chosen] = x.detach()[better]
        self.fools[chosen] = fools[better]
        self.loss[chosen] = loss[better]
