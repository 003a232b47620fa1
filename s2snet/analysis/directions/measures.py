"""Directions of large curvature, the subspaces that they span, and what happens along and inside them.

Curvature is that of one class's score against the present one's, as an operator: there is never a dense Hessian. The
method is that of arXiv 1807.04200 as its authors' code has it, except for the sign. Values are about F_c - F_l here,
the score of the class in question minus that of the clean image's label: they are positive if the class's score is
convex, as in the paper's figures. Their code has F_l - F_c.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from s2snet.analysis.batched import BATCH, logits
from s2snet.attacks import deepfool
from s2snet.config.choices import choose
from s2snet.models import Subspace, build

RESTARTS = 60  # of Lanczos; pairs that have not converged by then are left out
CURVED = ("first", "last", "most", "first_and_last")  # bases taken from the computed eigenpairs
BASES = (*CURVED, "least", "attacks", "random")
KINDS = ("first", "last", "least", "random")  # of the directions that are traced


def reach_class(
    model: nn.Module, images: Tensor, labels: Tensor, target: int, *, count: int, steps: int, overshoot: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (images, perturbations, labels) of the first m <= count of `images` whose DeepFool (L2) reaches `target`.

    `labels` are the model's own predictions, none of them `target`. A perturbation includes the `overshoot`. Cost: a
    forward and a backward per image and step, for as many images as it takes.
    """
    reached = []
    for some, label in zip(images.split(count), labels.split(count), strict=True):
        targets = torch.full_like(label, target)
        moved = deepfool(model, some, label, targets=targets, steps=steps, overshoot=overshoot, bisections=0)
        succeeded = (moved != some).flatten(1).any(dim=1)
        reached.append((some[succeeded], (moved - some)[succeeded], label[succeeded]))
        if sum(len(part) for part, *_ in reached) >= count:
            break
    return tuple(torch.cat(parts)[:count] for parts in zip(*reached, strict=True))


def step_length(images: Tensor) -> float:
    """Return the paper's L2 step of the central difference: sqrt(n) (max - min of the images) / 512 * 10."""
    return images[0].numel() ** 0.5 * float(images.max() - images.min()) / 512 * 10


class MeanHessian:
    """v [n] -> the mean over points of the Hessian of F_target - F_label, times v, by central differences.

    The step is `h` long (L2) whatever v's length, as long as a real perturbation: the Hessian of a ReLU network itself
    is 0 almost everywhere. So this is the curvature over that distance, and for a network no exact matrix. `strict`
    takes each point's P H P / |gradient| instead, with P the projection off the gradient: the curvature of its level
    set (arXiv 1705.09554). One call costs two forwards and backwards per point.
    """

    def __init__(self, model: nn.Module, points: Tensor, labels: Tensor, target: int, h: float, strict: bool = False):
        if h <= 0:
            raise ValueError(f"h={h}: a step is above 0")
        self.model, self.points, self.labels, self.target, self.h = model, points, labels, target, h
        self.slopes = self.gradients(points)
        self.lengths = self.slopes.norm(dim=1, keepdim=True)
        self.normals = self.slopes / self.lengths.clamp(min=1e-30) if strict else None

    @property
    def size(self) -> int:
        return self.slopes.shape[1]

    def gradients(self, points: Tensor) -> Tensor:
        """Return the gradients of F_target - F_label at the points, float64 [m, n]. A forward and a backward each."""
        gradients = []
        for some, label in zip(points.split(BATCH), self.labels.split(BATCH), strict=True):
            x = some.detach().requires_grad_(True)
            with torch.enable_grad():
                scores = self.model(x)
                gain = scores[:, self.target] - scores.gather(1, label[:, None])[:, 0]
                gradients.append(torch.autograd.grad(gain.sum(), x)[0].flatten(1).double())
        return torch.cat(gradients)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        ways = torch.from_numpy(np.array(v, np.float64).reshape(1, -1)).to(self.slopes)
        ways = self._tangent(ways.expand_as(self.slopes))
        sizes = ways.norm(dim=1, keepdim=True)
        moves = (self.h * ways / sizes.clamp(min=1e-30)).to(self.points.dtype).view_as(self.points)
        change = self.gradients(self.points + moves) - self.gradients(self.points - moves)
        product = self._tangent(change / (2 * self.h) * sizes)
        if self.normals is not None:
            product = product / self.lengths.clamp(min=1e-30)
        return product.mean(dim=0).cpu().numpy()

    def turn(self, seed: int = 0, draws: int = 3) -> float:
        """Return the change of the mean gradient over a step, relative to its length: the largest of random `draws`."""
        ways = np.random.default_rng(seed).standard_normal((draws, self.size))
        turns = [np.linalg.norm(self(way / np.linalg.norm(way))) for way in ways]
        length = 1.0 if self.normals is not None else float(self.lengths.mean())
        return max(turns) * self.h / max(length, 1e-30)

    def _tangent(self, ways: Tensor) -> Tensor:
        if self.normals is None:
            return ways
        return ways - (ways * self.normals).sum(dim=1, keepdim=True) * self.normals


def eigenpairs(hessian: MeanHessian, k: int, tol: float, seed: int = 0) -> dict[str, Tensor]:
    """Return the k eigenpairs of largest magnitude by Lanczos (scipy's ARPACK), or those that converged; float64.

    vectors [n, k] with orthonormal columns; eigenvalues [k] as Lanczos gives them; curvature [k], v'Hv evaluated once
    more, by which all are sorted in descending order; residual [k], |Hv - curvature v|. For a symmetric matrix
    eigenvalues and curvature are equal and the residual is 0. The largest entry of each vector is positive.
    """
    size = hessian.size
    if not 1 <= k < size:
        raise ValueError(f"k={k}: from 1 to {size - 1}, for images of {size} pixels")
    operator = LinearOperator((size, size), matvec=hessian, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(size)
    try:
        values, vectors = eigsh(operator, k, which="LM", ncv=min(size, 4 * k + 4), tol=tol, v0=start, maxiter=RESTARTS)
    except ArpackNoConvergence as partly:
        values, vectors = partly.eigenvalues, partly.eigenvectors
    vectors = vectors * np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0))
    curvature, residual = curvature_along(hessian, vectors)
    order = np.argsort(-curvature, kind="stable")
    pairs = {"vectors": vectors[:, order], "eigenvalues": values[order]}
    pairs |= {"curvature": curvature[order], "residual": residual[order]}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in pairs.items()}


def curvature_along(hessian: MeanHessian, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (v'Hv, |Hv - (v'Hv) v|) of each unit column; one product each."""
    products = [hessian(vector) for vector in vectors.T]
    curvature = np.array([vector @ product for vector, product in zip(vectors.T, products, strict=True)])
    rest = [product - c * vector for vector, product, c in zip(vectors.T, products, curvature, strict=True)]
    return curvature, np.array([np.linalg.norm(each) for each in rest])


def select_pairs(curvature: Tensor, basis: str, count: int) -> Tensor:
    """Return the indices, int64 [count], of a class's pairs that a basis takes; they are sorted by signed curvature.

    `first` are the most positive, `last` the most negative, `most` and `least` those of largest and smallest
    magnitude, `first_and_last` half of each. ValueError if there are fewer than `count`.
    """
    choose("basis", basis, (*CURVED, "least"))
    if not 1 <= count <= len(curvature):
        raise ValueError(f"basis {basis} of {count} directions per class: there are {len(curvature)} (k)")
    every = torch.arange(len(curvature))
    if basis == "first":
        return every[:count]
    if basis == "last":
        return every.flip(0)[:count]
    if basis == "first_and_last":
        return torch.cat([every[: count - count // 2], every.flip(0)[: count // 2]])
    return curvature.abs().argsort(descending=basis == "most", stable=True)[:count]


def interleave(classes: list[dict[str, Tensor]], basis: str, count: int) -> Tensor:
    """Return as many directions of each class, [n, count * classes]: the first of every class, then the second, ..."""
    selected = [pairs["vectors"][:, select_pairs(pairs["curvature"], basis, count)] for pairs in classes]
    return torch.stack(selected, dim=2).flatten(1)


def orthonormal(vectors: Tensor) -> Tensor:
    """Return an orthonormal basis of the columns' span (reduced QR), float64 [n, d], d the rank of the columns.

    Two classes, for example, have each other's directions.
    """
    if not vectors.shape[1]:
        return vectors.double()
    basis, rest = torch.linalg.qr(vectors.double())
    independent = rest.diagonal().abs() > 1e-6 * rest.diagonal().abs().max()
    return basis if independent.all() else torch.linalg.qr(vectors[:, independent].double())[0]


def random_basis(n: int, d: int, seed: int = 0, orthogonal_to: Tensor | None = None) -> Tensor:
    """Return a uniformly random orthonormal basis [n, d], orthogonal to the columns of `orthogonal_to` [n, m]."""
    draws = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))
    if orthogonal_to is not None:
        taken = orthogonal_to.shape[1]
        if n - taken < d:
            raise ValueError(
                f"{d} directions orthogonal to {taken} others in {n} dimensions: reduce k or directions per class"
            )
        for _ in range(2):  # twice, for rounding
            draws = draws - orthogonal_to @ (orthogonal_to.T @ draws)
    return orthonormal(draws)


def attack_directions(perturbations: Tensor) -> tuple[Tensor, Tensor]:
    """Return first-order directions: (right singular vectors [n, m], singular values [m]) of perturbations [m, ...].

    Each perturbation is scaled to length 1, and no mean is subtracted (arXiv 1807.04200). Zeros are left out.
    """
    flat = perturbations.flatten(1).double()
    flat = flat[flat.norm(dim=1) > 0]
    _, values, vectors = torch.linalg.svd(flat / flat.norm(dim=1, keepdim=True), full_matrices=False)
    return vectors.T, values


def share_within(basis: Tensor, vectors: Tensor) -> Tensor:
    """Return |Q'r| / |r| for each of vectors [m, ...], float64 [m]; a random subspace has about sqrt(d / n)."""
    flat = vectors.flatten(1).double()
    return (flat @ basis.double()).norm(dim=1) / flat.norm(dim=1).clamp(min=1e-30)


class Spans:
    """The subspaces by name and number of directions per class, from eigenpairs, perturbations and random draws.

    The paper computes all n - 1 pairs of a class. With fewer, the rest of the space stands for the missing ones: random
    directions orthogonal to every pair of every class, along which no class's curvature is among its k largest. They
    come last in `most` and first in `least`.
    """

    def __init__(self, classes: list[dict[str, Tensor]], perturbations: Tensor, seed: int):
        self.classes = [{name: tensor.cpu() for name, tensor in pairs.items()} for pairs in classes]
        self.count, n = len(classes), len(classes[0]["vectors"])
        self.pairs = min(len(pairs["curvature"]) for pairs in classes)
        every = orthonormal(torch.cat([pairs["vectors"] for pairs in self.classes], dim=1))
        self.rest = random_basis(n, n - every.shape[1], seed + 1, orthogonal_to=every)
        self.random = random_basis(n, n, seed)
        self.attacks, self.singular = attack_directions(perturbations.cpu())

    def has(self, basis: str, count: int) -> bool:
        """Return whether there are `count` directions per class."""
        if basis == "attacks":
            return count * self.count <= self.attacks.shape[1]
        return basis in ("most", "least", "random") or count <= self.pairs

    def vectors(self, basis: str, count: int) -> Tensor:
        """Return the directions [n, count * classes]: `count` of each class, or as many without a class."""
        if basis in ("random", "attacks"):
            return getattr(self, basis)[:, : count * self.count]
        if basis in ("most", "least"):
            paired = interleave(self.classes, basis, self.pairs)
            parts = [paired, self.rest] if basis == "most" else [self.rest, paired]
            return torch.cat(parts, dim=1)[:, : count * self.count]
        return interleave(self.classes, basis, count)

    def basis(self, basis: str, count: int) -> Tensor:
        """Return the orthonormal basis of these directions, float64."""
        return orthonormal(self.vectors(basis, count))

    def traced(self, count: int) -> Iterator[tuple[str, int, int, Tensor]]:
        """Yield (kind, class, rank, unit direction [n]) of `count` directions of each class and kind."""
        for kind in KINDS:
            vectors = self.vectors(kind, count)
            for column, vector in enumerate(vectors.T):
                yield kind, column % self.count, column // self.count, vector


def traced_logits(model: nn.Module, images: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
    """Return the logits [len(lengths), B, K] at images + s * direction, not clipped, for a unit direction [n]."""
    way = direction.to(images).view(1, *images.shape[1:])
    return torch.stack([logits(model, images + float(s) * way) for s in lengths])


def free_perturbations(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return DeepFool's L2 perturbations [B, C, H, W], untargeted; 0 if it fails. `labels` are the model's own."""
    return deepfool(model, images, labels) - images


def universal_perturbation(model: nn.Module, images: Tensor, labels: Tensor, norm: float, steps: int = 20) -> Tensor:
    """Return one perturbation [C, H, W] of L2 length `norm` for all images, by projected gradient steps.

    A step, each shorter than the last, lowers the lead of the labels that still lead; the result is 0 if none of them
    has a gradient. Deterministic; `steps` forwards and backwards per image.
    """
    delta = torch.zeros_like(images[0])
    for step in range(steps):
        gradient = torch.zeros_like(delta)
        for some, label in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            x = delta.clone().requires_grad_(True)
            with torch.enable_grad():
                scores = model(some + x)
                own = scores.gather(1, label[:, None])[:, 0]
                lead = own - scores.scatter(1, label[:, None], -torch.inf).amax(dim=1)
                gradient -= torch.autograd.grad(lead.clamp(min=0).sum(), x)[0]
        if gradient.norm() == 0:
            break
        delta = delta + norm * (1 - step / steps) * gradient / gradient.norm()
        delta = norm * delta / delta.norm()
    return delta


def label_changes(model: nn.Module, images: Tensor, labels: Tensor, shift: Tensor) -> Tensor:
    """Return Bool [B]: whether a constant shift, not clipped, changes the label of each image."""
    return logits(model, images + shift.to(images).view(1, *images.shape[1:])).argmax(dim=1) != labels


def projection(basis: Tensor, images: Tensor) -> Subspace:
    """Return the purifier that projects onto the basis [n, d] and restores the mean of what that removes."""
    _, channels, _, size = images.shape
    module = build("subspace", channels=channels, size=size, dimensions=basis.shape[1])
    return module.to(images).set(basis.to(images), images).eval()


def confined_lengths(model: nn.Module, images: Tensor, labels: Tensor, basis: Tensor, steps: int) -> Tensor:
    """Return the L2 lengths, float64 [B], of DeepFool's perturbations in a subspace, not clipped; inf if it fails."""
    moved = deepfool(model, images, labels, subspace=basis.to(images), box=False, steps=steps)
    length = (moved.double() - images.double()).flatten(1).norm(dim=1)
    return torch.where(length > 0, length, torch.inf)
