"""Sample from, step in and project onto the ball around each image, intersected with [0, 1]; exact in float64."""

import torch
from torch import Tensor

from s2snet.attacks.noise import Noise

NORMS = ("linf", "l2", "l1")


class Ball:
    """All points within `eps` (pixel units, [0, 1] scale) of each image and within [0, 1].

    `sparsity` is the fraction of an image's coordinates that one step changes (l1 only).
    """

    def __init__(self, images: Tensor, eps: float, norm: str, sparsity: float = 0.01):
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r}: allowed are {', '.join(NORMS)}")
        self.images, self.eps, self.norm, self.sparsity = images, float(eps), norm, sparsity
        if norm == "linf":
            # Computed once and rounded inwards, so that repeated clamping stays exact.
            self.lower = _inwards(images, -self.eps).clamp_(min=0)
            self.upper = _inwards(images, self.eps).clamp_(max=1)

    def rows(self, rows: Tensor) -> "Ball":
        """Return the balls of these rows of the batch."""
        part = object.__new__(Ball)
        part.images, part.eps, part.norm, part.sparsity = (
            self.images[rows],
            self.eps,
            self.norm,
            self.sparsity,
        )
        if self.norm == "linf":
            part.lower, part.upper = self.lower[rows], self.upper[rows]
        return part

    def start(self, noise: Noise, rows: Tensor, restart: int, inner: bool = False) -> Tensor:
        """Return a uniform random point of each ball, projected onto the box.

        In high dimensions a uniform point of the l2 ball lies near its surface. With `inner`, the length of an l2
        start is uniform too.
        """
        if self.norm == "linf":
            return self.project(self.images + (2 * noise.uniform(self.images, rows, restart) - 1) * self.eps)
        first = noise.uniform(self.images.flatten(1)[:, :1], rows, restart, draw=1)[:, 0]
        if self.norm == "l2":
            direction = unit(noise.normal(self.images, rows, restart))
            radius = first if inner else first ** (1 / max(1, self.images.flatten(1).shape[1]))
            return self.project(self.images + direction * spread(radius, self.images) * self.eps)
        # l1: n + 1 exponentials divided by their sum are uniform on the simplex; signs are independent.
        sizes = -torch.log1p(-noise.uniform(self.images, rows, restart))
        signs = (noise.uniform(self.images, rows, restart, draw=2) < 0.5).to(sizes) * 2 - 1
        total = sizes.flatten(1).sum(dim=1) - torch.log1p(-first)
        return self.project(self.images + signs * sizes / spread(total.clamp(min=1e-30), sizes) * self.eps)

    def steepest(self, gradient: Tensor, points: Tensor) -> Tensor:
        """Return the direction of steepest ascent with length 1 in this norm, or 0 for a zero gradient.

        In l1 that is a single coordinate. As in Croce and Hein (arXiv 2103.01208, section 3), the largest fraction
        `sparsity` of the coordinates changes instead, skipping those at the box that would leave it.
        """
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l2":
            return unit(gradient)
        stuck = ((points <= 0) & (gradient < 0)) | ((points >= 1) & (gradient > 0))
        flat = gradient.masked_fill(stuck, 0).flatten(1)
        count = max(1, round(self.sparsity * flat.shape[1]))
        top = flat.abs().topk(min(count, flat.shape[1]), dim=1).indices
        return torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign() / count).view_as(gradient)

    def project(self, points: Tensor) -> Tensor:
        """Return the nearest points of ball and box (l2: project onto the ball, then clip, which stays in the ball)."""
        if self.norm == "linf":
            return points.clamp(self.lower, self.upper)
        delta = points - self.images
        if self.norm == "l2":
            length = delta.flatten(1).norm(dim=1)
            delta = delta * spread((self.eps / length.clamp(min=1e-30)).clamp(max=1), delta)
        else:
            delta = _nearest_l1(delta.double(), self.images.double(), self.eps).to(delta.dtype)
        points = (self.images + delta).clamp(0, 1)
        # Float32 rounding leaves some slightly outside: shrink those until float64 agrees in any summation order.
        for less in (1e-6, 2e-6, 4e-6, 1e-5, 1e-4, 1e-2, 1):
            outside = distance(points, self.images, self.norm) > self.eps * (1 - 1e-12)
            if not outside.any():
                break
            delta = torch.where(spread(outside, delta), delta * (1 - less), delta)
            points = torch.where(spread(outside, delta), (self.images + delta).clamp(0, 1), points)
        return points


def distance(points: Tensor, images: Tensor, norm: str) -> Tensor:
    """Return the distance between corresponding images, float64 [B]; 0 for an image without pixels."""
    delta = (points.double() - images.double()).flatten(1)
    if norm == "linf":
        return delta.abs().amax(dim=1) if delta.shape[1] else delta.sum(dim=1)
    return delta.norm(dim=1, p={"l1": 1, "l2": 2}[norm])


def eight_bits(points: Tensor, images: Tensor) -> Tensor:
    """Return the points as uint8, each pixel rounded toward its image's, which stays in the ball of 8-bit images.

    Rounding changes the images, so classify the saved ones again, as float32 / 255.
    """
    scaled, clean = points.double() * 255, (images.double() * 255).round()
    # tolerance of 1e-4 gray levels, so that k / 255 in float32 maps to k
    inwards = torch.where(scaled > clean, (scaled + 1e-4).floor(), (scaled - 1e-4).ceil())
    return inwards.clamp(0, 255).to(torch.uint8)


def unit(vectors: Tensor) -> Tensor:
    """Return each image's vector scaled to l2 length 1; 0 stays 0. Rescaled first to keep squares from underflowing."""
    flat = vectors.flatten(1)
    largest = flat.abs().amax(dim=1) if flat.shape[1] else flat.new_zeros(len(flat))
    scaled = vectors / spread(torch.where(largest > 0, largest, 1), vectors)
    length = scaled.flatten(1).norm(dim=1)
    return scaled / spread(torch.where(length > 0, length, 1), vectors)


def spread(values: Tensor, images: Tensor) -> Tensor:
    """Reshape [B] to [B, 1, ...], to broadcast over images."""
    return values.reshape(-1, *[1] * (images.dim() - 1))


def _inwards(images: Tensor, shift: float) -> Tensor:
    """Return images + shift, rounded toward the images if rounding would leave the ball."""
    bound = (images.double() + shift).to(images.dtype)
    for _ in range(2):  # one step suffices unless the sum itself was rounded
        outside = (bound.double() - images.double()).abs() > abs(shift)
        bound = torch.where(outside, torch.nextafter(bound, images), bound)
    return bound


def _nearest_l1(delta: Tensor, images: Tensor, eps: float) -> Tensor:
    """Return the point of l1 ball and box nearest to images + delta (in l2), as a difference from the images.

    It is sign(delta) min(max(|delta| - cut, 0), room) with the `cut` >= 0 for which its length is eps. The length
    decreases piecewise linearly in `cut`, with corners at |delta| and |delta| - room; sorting the corners gives the
    piece that contains eps.
    """
    size = delta.abs().flatten(1)
    room = torch.where(delta > 0, 1 - images, images).flatten(1)
    corners, order = torch.cat([size, size - room], dim=1).sort(dim=1, descending=True)
    slope = torch.where(order < size.shape[1], 1.0, -1.0).to(size).cumsum(dim=1)[:, :-1]
    length = torch.cat([slope.new_zeros(len(slope), 1), slope * -corners.diff(dim=1)], dim=1).cumsum(dim=1)
    place = torch.searchsorted(length, length.new_full((len(length), 1), eps)).clamp(1, max(1, length.shape[1] - 1))
    rise = slope.gather(1, place - 1).clamp(min=1)  # the slope of a piece that crosses eps is positive
    cut = corners.gather(1, place - 1) - (eps - length.gather(1, place - 1)) / rise
    inside = torch.minimum(size, room).sum(dim=1, keepdim=True) <= eps
    cut = torch.where(inside, 0, cut)
    return (delta.sign().flatten(1) * torch.minimum((size - cut).clamp(min=0), room)).view_as(delta)
