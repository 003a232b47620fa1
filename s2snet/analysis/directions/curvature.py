"""Curvature of one class's score against the present one's, as an operator: never a dense Hessian.

The method is the one of arXiv 1807.04200 as its authors' code has it, but for the sign. Values are about F_c - F_l
here, the score of the class in question minus that of the clean image's label: positive where the class's score is
convex, as in their figures. Their code has F_l - F_c.
"""

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from s2snet.analysis.batched import BATCH
from s2snet.attacks import deepfool

RESTARTS = 60  # of Lanczos; pairs that have not converged by then are left out


def toward(
    model: nn.Module, images: Tensor, labels: Tensor, target: int, *, count: int, steps: int, overshoot: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(images, perturbations, labels) of the first m <= count of `images` whose DeepFool (l2) reaches `target`.

    `labels` are the model's own, none of them `target`. A perturbation includes the `overshoot`. Costs a forward and a
    backward per image and step, for as many images as it takes.
    """
    kept = []
    for some, label in zip(images.split(count), labels.split(count), strict=True):
        targets = torch.full_like(label, target)
        moved = deepfool(model, some, label, targets=targets, steps=steps, overshoot=overshoot, bisections=0)
        there = (moved != some).flatten(1).any(dim=1)
        kept.append((some[there], (moved - some)[there], label[there]))
        if sum(len(part) for part, *_ in kept) >= count:
            break
    return tuple(torch.cat(parts)[:count] for parts in zip(*kept, strict=True))


def step_length(images: Tensor) -> float:
    """The paper's l2 step of the central difference: sqrt(n) (max - min of the images) / 512 * 10."""
    return images[0].numel() ** 0.5 * float(images.max() - images.min()) / 512 * 10


class MeanHessian:
    """v [n] -> the mean over points of the Hessian of F_target - F_label, times v, by central differences.

    The step is `h` long (l2) whatever v's length, as long as a real perturbation: a ReLU network's Hessian itself is 0
    almost everywhere. So this is the curvature over that distance, and for a network no exact matrix. `strict` takes
    each point's P H P / |gradient| instead, with P off the gradient: the curvature of its level set (arXiv 1705.09554).
    One call costs two forwards and backwards per point.
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
        """Of F_target - F_label at the points, float64 [m, n]. One forward and one backward each."""
        found = []
        for some, label in zip(points.split(BATCH), self.labels.split(BATCH), strict=True):
            x = some.detach().requires_grad_(True)
            with torch.enable_grad():
                logits = self.model(x)
                gain = logits[:, self.target] - logits.gather(1, label[:, None])[:, 0]
                found.append(torch.autograd.grad(gain.sum(), x)[0].flatten(1).double())
        return torch.cat(found)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        ways = torch.from_numpy(np.array(v, np.float64).reshape(1, -1)).to(self.slopes)
        ways = self._tangent(ways.expand_as(self.slopes))
        sizes = ways.norm(dim=1, keepdim=True)
        moves = (self.h * ways / sizes.clamp(min=1e-30)).to(self.points.dtype).view_as(self.points)
        turned = self.gradients(self.points + moves) - self.gradients(self.points - moves)
        product = self._tangent(turned / (2 * self.h) * sizes)
        if self.normals is not None:
            product = product / self.lengths.clamp(min=1e-30)
        return product.mean(dim=0).cpu().numpy()

    def turn(self, seed: int = 0, draws: int = 3) -> float:
        """By what share of itself the mean gradient turns over a step in a random direction: the largest of `draws`."""
        ways = np.random.default_rng(seed).standard_normal((draws, self.size))
        turns = [np.linalg.norm(self(way / np.linalg.norm(way))) for way in ways]
        length = 1.0 if self.normals is not None else float(self.lengths.mean())
        return max(turns) * self.h / max(length, 1e-30)

    def _tangent(self, ways: Tensor) -> Tensor:
        if self.normals is None:
            return ways
        return ways - (ways * self.normals).sum(dim=1, keepdim=True) * self.normals


def eigenpairs(hessian: MeanHessian, k: int, tol: float, seed: int = 0) -> dict[str, Tensor]:
    """The k pairs of largest magnitude by Lanczos (scipy's ARPACK), or those of them that converged; float64.

    vectors [n, k] with orthonormal columns; eigenvalues [k] as Lanczos has them; curvature [k], v'Hv asked once more,
    by which all are sorted, descending; residual [k], |Hv - curvature v|. For one symmetric matrix eigenvalues and
    curvature are equal and the residual is 0. The sign of a vector is the one of its largest entry: positive.
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
    curvature, residual = measured_along(hessian, vectors)
    order = np.argsort(-curvature, kind="stable")
    found = {"vectors": vectors[:, order], "eigenvalues": values[order]}
    found |= {"curvature": curvature[order], "residual": residual[order]}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()}


def measured_along(hessian: MeanHessian, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(v'Hv, |Hv - (v'Hv) v|) of each unit column; one product each."""
    products = [hessian(vector) for vector in vectors.T]
    curvature = np.array([vector @ product for vector, product in zip(vectors.T, products, strict=True)])
    rest = [product - c * vector for vector, product, c in zip(vectors.T, products, curvature, strict=True)]
    return curvature, np.array([np.linalg.norm(each) for each in rest])
