"""What minimal attacks share: the nearest fooling image so far, the way back, the last verdict."""

import torch
from torch import Tensor

from s2snet.attacks.balls import distance, spread
from s2snet.attacks.gradients import Prober
from s2snet.attacks.losses import clearly_fooled, margin


def dual_length(gradient: Tensor, norm: str) -> Tensor:
    """How much a linear loss rises per unit of distance in this norm, [B]."""
    flat = gradient.flatten(1)
    return flat.norm(dim=1) if norm == "l2" else flat.abs().sum(dim=1)


class Closest:
    """The nearest image of each that fools clearly (by `kappa` and by float32's rounding); at first none.

    Making one costs a forward: images that are fooled as they are need no attack and are at distance 0.
    """

    def __init__(self, images: Tensor, prober: Prober, norm: str, kappa: float = 0.0):
        self.clean, self.images = images, images.clone()
        self.prober, self.norm, self.kappa = prober, norm, kappa
        self.distance = images.new_full((len(images),), torch.inf, dtype=torch.float64)
        everyone = torch.arange(len(images), device=images.device)
        if len(images):
            fools, _ = prober.look(images, everyone)
            # float32's noise in a margin, by the clean logits' size: at the boundary they may all be near 0
            self.noise = 2e-5 * prober.logits.abs().amax(dim=1).nan_to_num(0, 0).to(images.dtype)
            self.distance[fools & (self.fools(everyone) | (kappa == 0))] = 0
        self.rows = everyone[self.distance > 0]  # those that need an attack

    def fools(self, rows: Tensor) -> Tensor:
        """Bool [b]: whether the prober's last answer, which was about these rows, fools clearly."""
        return clearly_fooled(self.prober.logits, *self.prober.classes(rows), self.kappa + self.noise[rows])

    def lack(self, rows: Tensor) -> Tensor:
        """How much margin the prober's last answer lacks to fool clearly, [b]; above 0 also where it does."""
        lack = self.kappa - margin(self.prober.logits, *self.prober.classes(rows))
        return lack.clamp(min=0).to(self.noise.dtype) + 2 * self.noise[rows]

    def first_guess(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(distance [b] of the boundary if the model were linear, the margin's gradient); one pass each way."""
        loss, self.prober.loss = self.prober.loss, margin
        _, _, gradient = self.prober.gradient(self.clean[rows], rows)
        self.prober.loss = loss
        steepness = dual_length(gradient, self.norm)
        # no image is farther than the box is wide
        widest = self.clean.flatten(1).shape[1] ** 0.5 if self.norm == "l2" else 1.0
        return (self.lack(rows) / steepness.clamp(min=1e-30)).clamp(max=widest), gradient

    def see(self, rows: Tensor, x: Tensor, fools: Tensor) -> None:
        """Keep those that fool and are nearer than before."""
        x = x.detach()
        length = distance(x, self.clean[rows], self.norm)
        better = fools & (length < self.distance[rows])
        self.images[rows[better]], self.distance[rows[better]] = x[better], length[better]

    def finish(self, bisections: int, before: Tensor | None = None, box: bool = True) -> Tensor:
        """The images: each pulled back along a line as far as it fools, then judged once more.

        The line goes to the clean image, or to the one `before` it on an attack's path.

        Those that fail are the clean images. Costs `bisections` + 1 forwards.
        """
        rows = torch.nonzero(self.distance.isfinite() & (self.distance > 0)).squeeze(1)
        start = (self.clean if before is None else before)[rows]
        delta = self.images[rows] - start
        low, high = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])
        for _ in range(bisections if len(rows) else 0):
            middle = (low + high) / 2
            x = start + spread(middle.to(delta.dtype), delta) * delta
            x = x.clamp(0, 1) if box else x
            self.prober.look(x, rows)
            fools = self.fools(rows)
            self.see(rows, x, fools)
            low, high = torch.where(fools, low, middle), torch.where(fools, middle, high)
        if len(rows):
            fools, _ = self.prober.look(self.images[rows], rows)
            self.images[rows[~fools]] = self.clean[rows[~fools]]
        return self.images
