"""Keep the nearest fooling image found by a minimal attack, and refine it by bisection."""

import torch
from torch import Tensor

from s2snet.attacks.balls import distance, spread
from s2snet.attacks.gradients import Objective
from s2snet.attacks.losses import clearly_fooled, margin


def dual_norm(gradient: Tensor, norm: str) -> Tensor:
    """Return the dual norm of the gradient, [B]: the increase of a linear loss per unit of distance in this norm."""
    flat = gradient.flatten(1)
    return flat.norm(dim=1) if norm == "l2" else flat.abs().sum(dim=1)


class NearestFooling:
    """The nearest clearly fooling image so far, for each image: by a margin of `kappa` plus float32's rounding error.

    Construction costs one forward: images that fool without an attack have distance 0 and are not in `rows`.
    """

    def __init__(self, images: Tensor, objective: Objective, norm: str, kappa: float = 0.0):
        self.clean, self.images = images, images.clone()
        self.objective, self.norm, self.kappa = objective, norm, kappa
        self.distance = images.new_full((len(images),), torch.inf, dtype=torch.float64)
        all_rows = torch.arange(len(images), device=images.device)
        if len(images):
            fools, _ = objective.evaluate(images, all_rows)
            # float32's rounding error of a margin, from the clean logits: at the boundary all may be near 0
            self.rounding = 2e-5 * objective.logits.abs().amax(dim=1).nan_to_num(0, 0).to(images.dtype)
            self.distance[fools & (self.fools(all_rows) | (kappa == 0))] = 0
        self.rows = all_rows[self.distance > 0]  # images to attack

    def fools(self, rows: Tensor) -> Tensor:
        """Return bool [b]: the objective's last evaluation, which was of these rows, fools clearly."""
        return clearly_fooled(self.objective.logits, *self.objective.classes(rows), self.kappa + self.rounding[rows])

    def missing_margin(self, rows: Tensor) -> Tensor:
        """Return the margin [b] that the last evaluation lacks to fool clearly; positive even if it fools."""
        lack = self.kappa - margin(self.objective.logits, *self.objective.classes(rows))
        return lack.clamp(min=0).to(self.rounding.dtype) + 2 * self.rounding[rows]

    def linear_distance(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (distance [b] to the boundary of the linearised model, gradient of the margin).

        Costs one forward and one backward.
        """
        loss, self.objective.loss = self.objective.loss, margin
        _, _, gradient = self.objective.gradient(self.clean[rows], rows)
        self.objective.loss = loss
        steepness = dual_norm(gradient, self.norm)
        # no distance exceeds the diameter of the box
        widest = self.clean.flatten(1).shape[1] ** 0.5 if self.norm == "l2" else 1.0
        return (self.missing_margin(rows) / steepness.clamp(min=1e-30)).clamp(max=widest), gradient

    def update(self, rows: Tensor, x: Tensor, fools: Tensor) -> None:
        """Keep the images that fool and are nearer than the previous ones."""
        x = x.detach()
        length = distance(x, self.clean[rows], self.norm)
        better = fools & (length < self.distance[rows])
        self.images[rows[better]], self.distance[rows[better]] = x[better], length[better]

    def refine(self, bisections: int, toward: Tensor | None = None, box: bool = True) -> Tensor:
        """Return the nearest images after a line search toward the clean image, and a final check.

        The line search goes to the images `toward` instead, if given (the previous ones on an attack's path). Images
        that fail the final check are replaced by the clean ones. Costs `bisections` + 1 forwards.
        """
        rows = torch.nonzero(self.distance.isfinite() & (self.distance > 0)).squeeze(1)
        start = (self.clean if toward is None else toward)[rows]
        delta = self.images[rows] - start
        low, high = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])
        for _ in range(bisections if len(rows) else 0):
            middle = (low + high) / 2
            x = start + spread(middle.to(delta.dtype), delta) * delta
            x = x.clamp(0, 1) if box else x
            self.objective.evaluate(x, rows)
            fools = self.fools(rows)
            self.update(rows, x, fools)
            low, high = torch.where(fools, low, middle), torch.where(fools, middle, high)
        if len(rows):
            fools, _ = self.objective.evaluate(self.images[rows], rows)
            self.images[rows[~fools]] = self.clean[rows[~fools]]
        return self.images
