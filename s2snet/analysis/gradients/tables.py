"""The tables of study=gradients: every network's gradients of every objective, measured and compared.

Which quantity the paper differentiated is not known, so there are four (OBJECTIVES). The loss at the true label carries
the label through the loss itself; the loss at the prediction and the top logit carry it as far as the prediction is
right; the logit of one fixed class is the same function for every image and carries no label at all.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.gradients import measures
from s2snet.analysis.intervals import Estimate, share
from s2snet.attacks.losses import cross_entropy
from s2snet.models import Defended

OBJECTIVES: dict[str, batched.Loss] = {
    "loss_at_label": cross_entropy,
    "loss_at_prediction": lambda logits, labels, targets: cross_entropy(logits, logits.argmax(dim=1)),
    "top_logit": lambda logits, labels, targets: logits.amax(dim=1),
    "fixed_logit": lambda logits, labels, targets: logits[:, 0],
}
IN_DOUBLE = 100  # images whose gradient is computed once more in float64


@dataclass(frozen=True)
class Network:
    """A classifier whose gradients are measured."""

    name: str
    title: str
    module: Defended


Found = dict[tuple[str, str], dict[str, Tensor]]  # (objective, network): its measures, image by image


def measured(
    bench: Bench, networks: list[Network], sample: Sample, counts: Tensor, side: int, folds: int, shuffles: int
) -> Found:
    """The measures of every network's gradients of every objective, each a part of its own."""
    base = networks[0].module
    images, labels = sample.images, sample.labels
    others = measures.strangers(labels, bench.seed)
    sobel = cache(lambda: measures.edges(images))
    of_base = cache(lambda objective: batched.gradients(base, images, labels, OBJECTIVES[objective]))
    random = torch.randn(images.shape, generator=torch.Generator().manual_seed(bench.seed)).to(images)
    names = labels.cpu().numpy()

    def measure(network: Network, objective: str) -> dict[str, Tensor]:
        loss = OBJECTIVES[objective]
        found = (
            of_base(objective) if network.name == "none" else batched.gradients(network.module, images, labels, loss)
        )
        few = slice(IN_DOUBLE)
        in_double = batched.gradients(
            copy.deepcopy(network.module).double(), images[few].double(), labels[few], loss, batch=50
        )
        small = measures.features(found, side)
        chance = [
            measures.probe(small, measures.shuffled(names, seed), folds, seed)
            for seed in range(bench.seed, bench.seed + shuffles)
        ]
        size, map_of = measures.magnitude(found), sobel()
        norm, zeros = measures.sizes(found)
        radial, frequency = measures.spectrum(found)
        own = measures.rank_correlation(size, map_of)
        strange = measures.rank_correlation(size, map_of[others])
        right = measures.probe(small, names, folds, bench.seed)
        vectors = {
            "probe": right,
            "probe_shuffled": np.mean(chance, axis=0),
            "probe_above_shuffled": right - np.mean(chance, axis=0),
            "probe_whole": measures.probe(measures.features(found, max(images.shape)), names, folds, bench.seed),
            "agreement": measures.agreement(of_base(objective), found),
            "agreement_stranger": measures.agreement(of_base(objective), found[others]),
            "agreement_random": measures.agreement(random, found),
            "mean_frequency": frequency,
            "edges": own,
            "edges_stranger": strange,
            "edges_above_stranger": own - strange,
            "log10_norm": np.log10(np.where(norm > 0, norm, np.nan)),
            "zeros": zeros,
            "all_zero": norm == 0,
            "float64": measures.agreement(found[few], in_double),
        }
        tensors = {name: torch.from_numpy(np.asarray(vector, np.float64)) for name, vector in vectors.items()}
        return tensors | {
            "radial": torch.from_numpy(radial),
            "class_gap": measures.class_gap(found, labels, torch.ones(1, len(labels))).cpu(),
            "class_gap_resampled": measures.class_gap(found, labels, counts).cpu(),
        }

    cells = [(objective, network) for objective in OBJECTIVES for network in networks]
    return {
        (objective, network.name): {
            key: tensor.cpu()
            for key, tensor in bench.tensors(
                f"{objective}-{network.name}",
                lambda network=network, objective=objective: measure(network, objective),
                network=network.module,
                base=base,
                images=images,
                labels=labels,
                options=[objective, side, folds, shuffles, bench.seed],
            ).items()
        }
        for objective, network in bench.each(cells, "gradients")
    }


MEASURES = (
    "class_gap", "probe", "probe_shuffled", "probe_above_shuffled", "probe_whole", "agreement", "agreement_stranger",
    "agreement_random", "mean_frequency", "edges", "edges_stranger", "edges_above_stranger", "log10_norm", "zeros",
    "all_zero", "float64",
)  # fmt: skip


def resampled_measure(cell: dict[str, Tensor], measure: str, counts: Tensor) -> tuple[float, Tensor, int]:
    """A measure's value, the same in every bootstrap sample [R], and how many images it is of."""
    if measure == "class_gap":
        return float(cell[measure]), cell["class_gap_resampled"], counts.shape[1]
    values = cell[measure]
    there = ~values.isnan()
    weights = counts[:, : len(values)] * there
    return float(values[there].mean()), weights @ values.nan_to_num() / weights.sum(dim=1), int(there.sum())


def interval(value: float, resampled: Tensor, n: int) -> Estimate:
    kept = resampled[~resampled.isnan()].numpy()
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), n)


def columns(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def estimates(found: Found, counts: Tensor) -> list[dict[str, Any]]:
    rows = []
    for (objective, network), cell in found.items():
        for measure in MEASURES:
            estimate = interval(*resampled_measure(cell, measure, counts))
            if measure == "all_zero":  # mostly none, of which no resample has any
                estimate = share(int(cell[measure].sum()), len(cell[measure]))
            rows.append({"objective": objective, "network": network, "measure": measure, **columns(estimate)})
    return rows


def changes(found: Found, counts: Tensor) -> list[dict[str, Any]]:
    """Each measure less that of the bare classifier, and of the S2SNet less that of the autoencoder, on equal draws."""
    rows = []
    for (objective, network), cell in found.items():
        for since in {"none": (), "s2snet": ("none", "autoencoder")}.get(network, ("none",)):
            for measure in MEASURES:
                value, resampled, n = resampled_measure(cell, measure, counts)
                before, resampled_before, n_before = resampled_measure(found[objective, since], measure, counts)
                change = interval(value - before, resampled - resampled_before, min(n, n_before))
                where = {"objective": objective, "network": network, "since": since, "measure": measure}
                rows.append({**where, **columns(change)})
    return rows


def spectra(found: Found, counts: Tensor, size: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for (objective, network), cell in found.items():
        there = ~cell["radial"].isnan().any(dim=1)
        weights = counts * there
        resampled = weights @ cell["radial"].nan_to_num() / weights.sum(dim=1, keepdim=True)
        for place, shares in enumerate(cell["radial"][there].T):
            estimate = interval(float(shares.mean()), resampled[:, place], len(shares))
            where = {"objective": objective, "network": network, "cycles_per_pixel": place / min(size)}
            rows.append({**where, **columns(estimate)})
    return rows


def histograms(found: Found, bins_per_decade: int = 4) -> list[dict[str, Any]]:
    """Images by the L2 norm of their gradient: `above` is the lower end of a bin in powers of ten."""
    rows = []
    for (objective, network), cell in found.items():
        norms = cell["log10_norm"]
        bins = (norms[~norms.isnan()] * bins_per_decade).floor()
        for place, count in zip(*(part.tolist() for part in bins.unique(return_counts=True)), strict=True):
            where = {"objective": objective, "network": network, "log10_above": place / bins_per_decade}
            rows.append({**where, "log10_below": (place + 1) / bins_per_decade, "images": count})
    return rows
