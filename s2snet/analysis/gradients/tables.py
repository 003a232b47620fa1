"""The tables of study=gradients: the gradients of every network and objective, and the index maps.

Which quantity the paper differentiated is not known, so there are four (OBJECTIVES). The loss at the true label carries
the label through the loss itself; the loss at the prediction and the top logit carry it if the prediction is correct;
the logit of one fixed class is the same function for every image and carries no label at all.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.gradients import measures
from s2snet.analysis.intervals import RESAMPLES, Estimate, share
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


Measured = dict[tuple[str, str], dict[str, Tensor]]  # (objective, network): its measures, image by image
Trained = dict[str, tuple[nn.Module, nn.Module]]  # unpooling: the autoencoder after stage 1, the S2SNet after stage 2


def measure(
    bench: Bench, networks: list[Network], sample: Sample, counts: Tensor, side: int, folds: int, shuffles: int
) -> Measured:
    """Return the measures of every network's gradients of every objective, each a part of its own."""
    base = networks[0].module
    images, labels = sample.images, sample.labels
    others = measures.draw_donors(labels, bench.seed)
    sobel = cache(lambda: measures.edges(images))
    of_base = cache(lambda objective: batched.gradients(base, images, labels, OBJECTIVES[objective]))
    random = torch.randn(images.shape, generator=torch.Generator().manual_seed(bench.seed)).to(images)
    names = labels.cpu().numpy()

    def measure_one(network: Network, objective: str) -> dict[str, Tensor]:
        loss = OBJECTIVES[objective]
        gradients = (
            of_base(objective) if network.name == "none" else batched.gradients(network.module, images, labels, loss)
        )
        few = slice(IN_DOUBLE)
        in_double = batched.gradients(
            copy.deepcopy(network.module).double(), images[few].double(), labels[few], loss, batch=50
        )
        small = measures.features(gradients, side)
        chance = [
            measures.probe(small, measures.shuffled(names, seed), folds, seed)
            for seed in range(bench.seed, bench.seed + shuffles)
        ]
        size, map_of = measures.magnitude(gradients), sobel()
        norm, zeros = measures.sizes(gradients)
        radial, frequency = measures.spectrum(gradients)
        own = measures.rank_correlation(size, map_of)
        other = measures.rank_correlation(size, map_of[others])
        correct = measures.probe(small, names, folds, bench.seed)
        vectors = {
            "probe": correct,
            "probe_shuffled": np.mean(chance, axis=0),
            "probe_above_shuffled": correct - np.mean(chance, axis=0),
            "probe_whole": measures.probe(measures.features(gradients, max(images.shape)), names, folds, bench.seed),
            "agreement": measures.agreement(of_base(objective), gradients),
            "agreement_stranger": measures.agreement(of_base(objective), gradients[others]),
            "agreement_random": measures.agreement(random, gradients),
            "mean_frequency": frequency,
            "edges": own,
            "edges_stranger": other,
            "edges_above_stranger": own - other,
            "log10_norm": np.log10(np.where(norm > 0, norm, np.nan)),
            "zeros": zeros,
            "all_zero": norm == 0,
            "float64": measures.agreement(gradients[few], in_double),
        }
        tensors = {name: torch.from_numpy(np.asarray(vector, np.float64)) for name, vector in vectors.items()}
        return tensors | {
            "radial": torch.from_numpy(radial),
            "class_gap": measures.class_gap(gradients, labels, torch.ones(1, len(labels))).cpu(),
            "class_gap_resampled": measures.class_gap(gradients, labels, counts).cpu(),
        }

    cells = [(objective, network) for objective in OBJECTIVES for network in networks]
    return {
        (objective, network.name): {
            key: tensor.cpu()
            for key, tensor in bench.tensors(
                f"{objective}-{network.name}",
                lambda network=network, objective=objective: measure_one(network, objective),
                network=network.module,
                base=base,
                images=images,
                labels=labels,
                options=[objective, side, folds, shuffles, bench.seed],
            ).items()
        }
        for objective, network in bench.track(cells, "gradients")
    }


MEASURES = (
    "class_gap", "probe", "probe_shuffled", "probe_above_shuffled", "probe_whole", "agreement", "agreement_stranger",
    "agreement_random", "mean_frequency", "edges", "edges_stranger", "edges_above_stranger", "log10_norm", "zeros",
    "all_zero", "float64",
)  # fmt: skip


def resampled_measure(cell: dict[str, Tensor], measure: str, counts: Tensor) -> tuple[float, Tensor, int]:
    """Return a measure's value, its value in every bootstrap sample [R], and the number of images."""
    if measure == "class_gap":
        return float(cell[measure]), cell["class_gap_resampled"], counts.shape[1]
    values = cell[measure]
    known = ~values.isnan()
    weights = counts[:, : len(values)] * known
    return float(values[known].mean()), weights @ values.nan_to_num() / weights.sum(dim=1), int(known.sum())


def interval(value: float, resampled: Tensor, n: int) -> Estimate:
    """Return the percentile interval of a value from its values in bootstrap samples; NaN are left out."""
    kept = resampled[~resampled.isnan()].numpy()
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), n)


def columns(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as columns of a row."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def estimates(measured: Measured, counts: Tensor) -> list[dict[str, Any]]:
    """Return the rows of `measures`: every measure of every network and objective."""
    rows = []
    for (objective, network), cell in measured.items():
        for measure in MEASURES:
            estimate = interval(*resampled_measure(cell, measure, counts))
            if measure == "all_zero":  # mostly none; then no resample has any
                estimate = share(int(cell[measure].sum()), len(cell[measure]))
            rows.append({"objective": objective, "network": network, "measure": measure, **columns(estimate)})
    return rows


def changes(measured: Measured, counts: Tensor) -> list[dict[str, Any]]:
    """Return the rows of `changes`: each measure minus that of the bare classifier, over the same resamples.

    The S2SNet is compared with the autoencoder too.
    """
    rows = []
    for (objective, network), cell in measured.items():
        for since in {"none": (), "s2snet": ("none", "autoencoder")}.get(network, ("none",)):
            for measure in MEASURES:
                value, resampled, n = resampled_measure(cell, measure, counts)
                before, resampled_before, n_before = resampled_measure(measured[objective, since], measure, counts)
                change = interval(value - before, resampled - resampled_before, min(n, n_before))
                cell_of = {"objective": objective, "network": network, "since": since, "measure": measure}
                rows.append({**cell_of, **columns(change)})
    return rows


def spectra(measured: Measured, counts: Tensor, size: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of `spectrum`: the share of power at each frequency."""
    rows = []
    for (objective, network), cell in measured.items():
        known = ~cell["radial"].isnan().any(dim=1)
        weights = counts * known
        resampled = weights @ cell["radial"].nan_to_num() / weights.sum(dim=1, keepdim=True)
        for place, shares in enumerate(cell["radial"][known].T):
            estimate = interval(float(shares.mean()), resampled[:, place], len(shares))
            frequency = place / min(size)
            rows.append(
                {"objective": objective, "network": network, "cycles_per_pixel": frequency, **columns(estimate)}
            )
    return rows


def histograms(measured: Measured, bins_per_decade: int = 4) -> list[dict[str, Any]]:
    """Return the rows of `norms`: images per bin of the L2 norm of their gradient, bins in powers of ten."""
    rows = []
    for (objective, network), cell in measured.items():
        norms = cell["log10_norm"]
        bins = (norms[~norms.isnan()] * bins_per_decade).floor()
        for place, count in zip(*(part.tolist() for part in bins.unique(return_counts=True)), strict=True):
            ends = {"log10_above": place / bins_per_decade, "log10_below": (place + 1) / bins_per_decade}
            rows.append({"objective": objective, "network": network, **ends, "images": count})
    return rows


def index_maps(bench: Bench, base: Defended, trained: Trained, sample: Sample, donors: Tensor) -> None:
    """Fill the tables unpooling, bits and exchanges, as far as networks were trained."""
    images, labels = sample.images, sample.labels
    for unpool, stages in trained.items():
        for name, purifier in zip(("autoencoder", "s2snet"), stages, strict=True):
            here = {"unpool": unpool, "network": name}
            facts = {"purifier": purifier, "classifier": base.classifier, "images": images, "labels": labels}

            def compare(purifier=purifier, here=here) -> list[dict[str, Any]]:
                outputs = batched.logits(purifier, images)
                correct = batched.logits(base.classifier, outputs).argmax(dim=1) == labels
                error = ((outputs - images) ** 2).flatten(1).mean(dim=1).double().cpu()
                counts = measures.resamples(len(labels), RESAMPLES, bench.seed)
                squared = interval(*resampled_measure({"error": error}, "error", counts))
                return [
                    {**here, "measure": "accuracy", **columns(share(int(correct.sum()), len(correct)))},
                    {**here, "measure": "squared_error", **columns(squared)},
                ]

            bench.rows("unpooling", compare, **here, **facts)
    if "indices" not in trained:
        return
    tuned = trained["indices"][1]
    bench.rows("bits", lambda: _bits(tuned, images), purifier=tuned, images=images)
    for name, purifier in zip(("autoencoder", "s2snet"), trained["indices"], strict=True):
        for kind in measures.EXCHANGES:
            bench.rows(
                "exchanges",
                lambda name=name, purifier=purifier, kind=kind: _exchange(
                    name, purifier, kind, base, sample, donors, bench.seed
                ),
                purifier=purifier,
                classifier=base.classifier,
                images=images,
                donors=donors,
                options=[kind, bench.seed],
            )


def _bits(purifier: nn.Module, images: Tensor) -> list[dict[str, Any]]:
    """Return a row per pooling: its choices, the nominal two bits of each, and their entropy over the images.

    Rows for the image, the code and, for comparison, the authors' SegNet at 224 pixels by arithmetic follow.
    """
    config = purifier.config
    size, channels = tuple(images.shape[2:]), images.shape[1]
    rows = []
    entropies = map(measures.entropy, measures.count_choices(purifier, images))
    for stage, entropy in zip(measures.capacity(size, config["widths"]), entropies, strict=True):
        rows.append(
            {"what": f"indices of pooling {stage['stage']}", **stage, "bits": 2 * stage["choices"]}
            | {"entropy_bits": float(entropy.sum()), "entropy_each": float(entropy.mean()), "n": len(images)}
        )
    known = measures.totals(size, channels, config["widths"])
    entropy = sum(row["entropy_bits"] for row in rows)
    each = entropy / known["choices"]
    rows.append(
        {"what": "all indices", "choices": known["choices"], "bits": known["index_bits"]}
        | {"entropy_bits": entropy, "entropy_each": each, "n": len(images)}
    )
    rows.append({"what": "image, 8 bits a value", "bits": known["image_bits"]})
    rows.append({"what": "code, 32 bits a value", "bits": known["code_bits"]})
    authors = measures.totals((224, 224), 3, (64, 128, 256, 512, 512))
    for what in ("index", "image", "code"):
        rows.append({"what": f"authors' SegNet at 224 x 224: {what}", "bits": authors[f"{what}_bits"]})
    return rows


def _exchange(
    name: str, purifier: nn.Module, kind: str, base: Defended, sample: Sample, donors: Tensor, seed: int
) -> list[dict[str, Any]]:
    """Return how often the classifier predicts, for each image's code with these indices, its label or the donor's."""
    images, labels = sample.images, sample.labels
    outputs = measures.exchange_indices(purifier, images, images[donors], kind, seed)
    predictions = batched.logits(base.classifier, outputs).argmax(dim=1)
    agrees = {"code": predictions == labels, "donor": predictions == labels[donors]}
    agrees["neither"] = ~(agrees["code"] | agrees["donor"])
    return [
        {"network": name, "indices": kind, "says": label, **columns(share(int(matches.sum()), len(matches)))}
        for label, matches in agrees.items()
    ]
