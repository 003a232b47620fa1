"""Forward and backward passes as attacks make them: to the input only, counted per image; the best kept."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks.losses import fooled, named


class Passes:
    """How many forward and backward passes each image of a batch took; an attack fills what it is given."""

    def __init__(self, batch: int):
        self.forwards = torch.zeros(batch, dtype=torch.int32)
        self.backwards = torch.zeros(batch, dtype=torch.int32)


class Prober:
    """Asks one module about images of one batch: logits, loss per image, gradient of the loss.

    `rows` says which images of the batch are meant. With `draws` above 1 gradients, losses and logits are
    means over that many passes, one at a time, for modules that answer at random. `aims`, where they are set,
    are the classes that the loss pulls to; what fools is decided by labels and targets alone. `logits` are
    the last answer's.
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
            raise ValueError(f"passes are for {len(self.passes.forwards)} images; the batch has {len(labels)}")
        self.aims: Tensor | None = targets
        self.logits: Tensor | None = None

    def classes(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Labels and targets of some images."""
        return self.labels[rows], None if self.targets is None else self.targets[rows]

    def answer(self, x: Tensor, rows: Tensor) -> Tensor:
        """The module's logits for `x`, one forward, with a graph where `x` asks for one; checked."""
        # a copy: a module that works in place must not move the image
        logits = self.model(x.clone())
        if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
            raise ValueError(
                f"the module answers {tuple(logits.shape)} to {len(x)} images; attacks want logits [B, K], K > 1"
            )
        for name, classes in zip(("label", "target"), self.classes(rows), strict=True):
            if classes is not None and len(classes) and not 0 <= classes.min() <= classes.max() < logits.shape[1]:
                raise ValueError(
                    f"{name}s reach from {classes.min()} to {classes.max()}; the module knows {logits.shape[1]} classes"
                )
        self.passes.forwards[rows.cpu()] += 1
        return logits

    def backward(self, values: Tensor, x: Tensor, rows: Tensor, keep_graph: bool = False) -> Tensor:
        """d values.sum() / d x, one backward. Non-finite entries become 0."""
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), x, retain_graph=keep_graph, allow_unused=True)
        if gradient is None:
            raise ValueError(
                "no gradient reaches the images: the module detaches them (one in stage 2 does while it trains; "
                "call .eval()) or is not differentiable (choose a route that is)"
            )
        self.passes.backwards[rows.cpu()] += 1
        return gradient.nan_to_num(0, 0, 0)

    def gradient(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(fools [b], loss [b], gradient like x); draws forwards and backwards."""
        total = [0, 0, 0]
        for _ in range(self.draws):
            x = x.detach().requires_grad_(True)
            logits = self.answer(x, rows)
            values = self._loss(logits, rows)
            gradient = self.backward(values, x, rows)
            total = [a + b.detach() for a, b in zip(total, (logits, values, gradient), strict=True)]
        self.logits, values, gradient = (item / self.draws for item in total)
        return fooled(self.logits, *self.classes(rows)), values, gradient

    def look(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(fools [b], loss [b]); draws forwards, no graph."""
        total = [0, 0]
        with torch.no_grad():
            for _ in range(self.draws):
                logits = self.answer(x, rows)
                total = [a + b for a, b in zip(total, (logits, self._loss(logits, rows)), strict=True)]
        self.logits, values = (item / self.draws for item in total)
        return fooled(self.logits, *self.classes(rows)), values

    def _loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        return self.loss(logits, self.labels[rows], None if self.aims is None else self.aims[rows])


class Best:
    """The best iterate of each image so far: fooling before not fooling, then by loss."""

    def __init__(self, images: Tensor):
        self.images = images.clone()
        self.fools = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.loss = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)

    def see(self, rows: Tensor, x: Tensor, fools: Tensor, loss: Tensor) -> None:
        # A NaN loss comes from NaN logits, which fool: nothing beats an answer that is no answer.
        loss = loss.double().nan_to_num(torch.inf, torch.inf, -torch.inf)
        before = self.fools[rows]
        better = (fools & ~before) | ((fools == before) & (loss > self.loss[rows]))
        chosen = rows[better]
        self.images[chosen] = x.detach()[better]
        self.fools[chosen] = fools[better]
        self.loss[chosen] = loss[better]
