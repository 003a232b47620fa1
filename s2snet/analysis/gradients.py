"""study=gradients: what an autoencoder and an S2SNet do to a classifier's input gradients, and what index maps carry.

For f, f∘A (after stage 1), f∘A_S (after stage 2), every other defence of the settings, and S2SNets trained here that
unpool in different ways: the six measures of gradients_measures.py, then the exchanges of gradients_indices.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from s2snet.analysis import gradients_indices, passes
from s2snet.analysis import gradients_measures as measures
from s2snet.analysis import gradients_tables as tables
from s2snet.analysis.bench import Bench, Claim, Sample
from s2snet.analysis.gradients_claims import claims
from s2snet.analysis.gradients_index_tables import Trained, index_maps
from s2snet.analysis.gradients_tables import OBJECTIVES, Network
from s2snet.analysis.intervals import RESAMPLES, share
from s2snet.choices import choose
from s2snet.models import Defended
from s2snet.models.segnet import UNPOOLINGS


def gradients(
    bench: Bench,
    *,
    images: int = 360,
    side: int = 8,
    folds: int = 5,
    shuffles: int = 5,
    unpoolings: Sequence[str] = ("nearest", "learned", "indices"),
    autoencoder: str = "segnet_small",
    epochs: int = 4,
    train_images: int | None = None,
    shown: int = 5,
) -> list[Claim]:
    """The study; its options are explained in conf/study/gradients.yaml.

    Cost in forwards and backwards: images x networks x 4, beside the training of one S2SNet for each of `unpoolings`.
    """
    given = {"images": images, "side": side, "folds": folds, "shuffles": shuffles, "epochs": epochs, "shown": shown}
    for name, value in given.items():
        least = 2 if name in ("images", "folds") else 1
        if value < least:
            raise ValueError(f"study.gradients.{name}={value}: at least {least}")
    for unpool in unpoolings:
        choose("study.gradients.unpoolings", unpool, UNPOOLINGS)
    sample = bench.images(images)
    base = bench.need("none")
    trained = {
        unpool: bench.stages(
            f"unpool_{unpool}",
            base.classifier,
            autoencoder,
            count=train_images,
            options={"unpool": unpool},
            stage1={"epochs": epochs},
            stage2={"epochs": epochs},
        )
        for unpool in unpoolings
    }
    networks = _networks(bench, trained)
    facts = {"networks": [network.module for network in networks], "images": sample.images, "labels": sample.labels}
    facts |= {"side": side, "folds": folds, "shuffles": shuffles, "seed": bench.seed}
    bench.rows("networks", lambda: _accuracies(networks, sample), **facts)

    counts = measures.resamples(len(sample.labels), RESAMPLES, bench.seed)
    found = tables.measured(bench, networks, sample, counts, side, folds, shuffles)
    bench.rows("measures", lambda: tables.estimates(found, counts), **facts)
    bench.rows("changes", lambda: tables.changes(found, counts), **facts)
    bench.rows("spectrum", lambda: tables.spectra(found, counts, sample.images.shape[2:]), **facts)
    bench.rows("norms", lambda: tables.histograms(found), **facts)

    donors = measures.strangers(sample.labels, bench.seed)
    index_maps(bench, base, trained, sample, donors)
    pictured = _first_of_each_class(sample.labels, shown)
    _show(bench, networks, trained, sample, donors, pictured)
    return claims(bench.tables)


gradients.version = 1


def _networks(bench: Bench, trained: Trained) -> list[Network]:
    """none, autoencoder and s2snet, then the other defences, then what was trained here and is none of these."""
    classifier = bench.need("none").classifier
    known = {name: Network(name, defence.title, defence.module) for name, defence in bench.defences.items()}
    rest = dict(trained)
    if not {"autoencoder", "s2snet"} <= known.keys() and rest:
        unpool = next(iter(rest))
        for name, title, made in zip(
            ("autoencoder", "s2snet"), ("Autoencoder", "S2SNet"), rest.pop(unpool), strict=True
        ):
            known[name] = Network(name, f"{title} trained here, {unpool}", Defended(made, classifier).eval())
    for name in ("autoencoder", "s2snet"):
        if name not in known:
            bench.need(name)
    for unpool, (_, tuned) in rest.items():
        known[f"unpool_{unpool}"] = Network(
            f"unpool_{unpool}", f"S2SNet trained here, {unpool}", Defended(tuned, classifier).eval()
        )
    first = ("none", "autoencoder", "s2snet")
    return [known[name] for name in (*first, *(name for name in known if name not in first))]


def _accuracies(networks: list[Network], sample: Sample) -> list[dict[str, Any]]:
    rows = []
    for network in networks:
        right = passes.right(network.module, sample.images, sample.labels)
        accuracy = share(int(right.sum()), len(right))
        rows.append({"network": network.name, "title": network.title, **tables.columns(accuracy)})
    return rows


def _first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """The places of the first image of each of the first `count` classes that come up."""
    firsts = {label: place for place, label in reversed(list(enumerate(labels.tolist())))}
    return torch.tensor(sorted(firsts.values())[:count])


def _show(
    bench: Bench,
    networks: list[Network],
    trained: Trained,
    sample: Sample,
    donors: Tensor,
    places: Tensor,
) -> None:
    images, labels = sample.images[places], sample.labels[places]
    names = [
        f"{bench.classes[label]}, test image {index}" for label, index in zip(labels, sample.index[places], strict=True)
    ]
    columns = [network.title for network in networks]
    for objective, title in (
        ("loss_at_label", "Gradients of the loss at the true label"),
        ("fixed_logit", f"Gradients of the logit of one class, {bench.classes[0]}, whatever the image shows"),
    ):
        found = [passes.gradients(network.module, images, labels, OBJECTIVES[objective]) for network in networks]
        bench.grid(objective, _side_by_side(images, *found), names, ["image", *columns], title, signed=tuple(columns))
    purified = {network.title: network.module.purifier for network in networks if network.module.has_purifier}
    restored = [passes.logits(purifier, images).clamp(0, 1) for purifier in purified.values()]
    caption = "Clipped to [0, 1] to be shown; the classifier sees them as they are."
    title = "What the classifier is given"
    bench.grid("purified", _side_by_side(images, *restored), names, ["image", *purified], title, caption)
    if "indices" not in trained:
        return
    given = sample.images[donors[places]]
    tuned = trained["indices"][1]
    made = [
        gradients_indices.exchanged(tuned, sample.images, sample.images[donors], kind, bench.seed)[places].clamp(0, 1)
        for kind in gradients_indices.EXCHANGES
    ]
    heads = [
        "image of the code",
        "image of other indices",
        *(f"indices: {kind}" for kind in gradients_indices.EXCHANGES),
    ]
    heads[-1] = "own indices, mean code"
    title = "One image's code with the index maps of another"
    bench.grid("exchanged", _side_by_side(images, given, *made), names, heads, title, caption)


def _side_by_side(*columns: Tensor) -> Tensor:
    """[n, C, H, W] each -> [n, columns, C, H, W]."""
    return torch.stack(columns, dim=1)
