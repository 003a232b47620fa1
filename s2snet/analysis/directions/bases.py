"""Subspaces from directions: which directions of each class, as orthonormal columns, nested in their number."""

import numpy as np
import torch
from torch import Tensor

from s2snet.config.choices import choose

CURVED = ("first", "last", "most", "first_and_last")  # those taken from the eigenpairs that were computed
BASES = (*CURVED, "least", "attacks", "random")


def places(curvature: Tensor, how: str, count: int) -> Tensor:
    """Which `count` of one class's pairs, sorted by signed curvature, descending: int64 [count].

    `first` are the most positive, `last` the most negative, `most` and `least` those of largest and smallest
    magnitude, `first_and_last` half of each. ValueError where there are fewer than `count`.
    """
    choose("basis", how, (*CURVED, "least"))
    if not 1 <= count <= len(curvature):
        raise ValueError(f"basis {how} of {count} directions per class: there are {len(curvature)} (k)")
    everyone = torch.arange(len(curvature))
    if how == "first":
        return everyone[:count]
    if how == "last":
        return everyone.flip(0)[:count]
    if how == "first_and_last":
        return torch.cat([everyone[: count - count // 2], everyone.flip(0)[: count // 2]])
    return curvature.abs().argsort(descending=how == "most", stable=True)[:count]


def joined(classes: list[dict[str, Tensor]], how: str, count: int) -> Tensor:
    """Equally many directions of each class, [n, count * classes]: every class's first, every class's second, ..."""
    picked = [pairs["vectors"][:, places(pairs["curvature"], how, count)] for pairs in classes]
    return torch.stack(picked, dim=2).flatten(1)


def orthonormal(vectors: Tensor) -> Tensor:
    """An orthonormal basis of the columns' span (reduced QR), float64 [n, d]; columns that add nothing are left out.

    Two classes have each other's directions, for one.
    """
    if not vectors.shape[1]:
        return vectors.double()
    basis, rest = torch.linalg.qr(vectors.double())
    adds = rest.diagonal().abs() > 1e-6 * rest.diagonal().abs().max()
    return basis if adds.all() else torch.linalg.qr(vectors[:, adds].double())[0]


def at_random(n: int, d: int, seed: int = 0, beside: Tensor | None = None) -> Tensor:
    """A uniformly random orthonormal basis [n, d], orthogonal to the columns of `beside` [n, m] where given."""
    draws = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))
    if beside is not None:
        if n - beside.shape[1] < d:
            raise ValueError(f"{d} directions beside {beside.shape[1]} in {n} dimensions; k or per_class is too large")
        draws = draws - beside @ (beside.T @ draws)
        draws = draws - beside @ (beside.T @ draws)  # again, for rounding
    return orthonormal(draws)


def of_attacks(perturbations: Tensor) -> tuple[Tensor, Tensor]:
    """First-order directions: (right singular vectors [n, m], singular values [m]) of perturbations [m, ...].

    Each is scaled to length 1; no mean is subtracted (arXiv 1807.04200). Zeros are left out.
    """
    flat = perturbations.flatten(1).double()
    flat = flat[flat.norm(dim=1) > 0]
    _, values, vectors = torch.linalg.svd(flat / flat.norm(dim=1, keepdim=True), full_matrices=False)
    return vectors.T, values


def within(basis: Tensor, vectors: Tensor) -> Tensor:
    """|Q'r| / |r| for each of vectors [m, ...], float64 [m]; sqrt(d / n) is what a random subspace has."""
    flat = vectors.flatten(1).double()
    return (flat @ basis.double()).norm(dim=1) / flat.norm(dim=1).clamp(min=1e-30)
