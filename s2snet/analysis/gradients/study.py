"""study=gradients: what an autoencoder and an S2SNet do to a classifier's input gradients, and what index maps carry.

For f, f∘A (after stage 1), f∘A_S (after stage 2), every other defence of the settings, and S2SNets trained here that
unpool in different ways: the six measures of measures.py, then the exchanges of indices.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench, Claim, Sample
from s2snet.analysis.gradients import measures, tables
from s2snet.analysis.gradients.claims import claims
from s2snet.analysis.gradients.index_tables import Trained, index_maps
from s2snet.analysis.gradients.indices import EXCHANGES, exchanged
from s2snet.analysis.gradients.tables import OBJECTIVES, Network
from s2snet.analysis.intervals import RESAMPLES, share
from s2snet.config.choices import choose
from s2snet.models import Defended
from s2snet.models.segnet import UNPOOLINGS

CLIPPED = "Clipped to [0, 1] to be shown; the classifier sees them as they are."


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

    Cost: four forwards and backwards for each image and network, beside the training of the S2SNets.
    """
    given = {"images": images, "side": side, "folds": folds, "shuffles": shuffles, "epochs": epochs, "shown": shown}
    for name, value in given.items():
        least = 2 if name in ("images", "folds") else 1
        if value < least:
            raise ValueError(f"study.gradients.{name}={value}: at least {least}")
    for unpool in unpoolings:
        choose("study.gradients.unpoolings", unpool, UNPOOLINGS)
    sample = bench.images(images)
    donors = measures.strangers(sample.labels, bench.seed)
    measures.enough(sample.labels.cpu().numpy(), folds)  # before an hour is spent on training
    base = bench.need("none")
    trained = {}
    for unpool in unpoolings:
        begun = bench.purifier(
            f"autoencoder-{unpool}",
            None,
            autoencoder,
            count=train_images,
            options={"unpool": unpool},
            stage1={"epochs": epochs},
        )
        tuned = bench.purifier(f"s2snet-{unpool}", base.classifier, begun, train_images, stage2={"epochs": epochs})
        trained[unpool] = begun, tuned
    networks = _networks(bench, trained)
    facts = {
        "networks": [[network.name, network.title, network.module] for network in networks],
        "images": sample.images,
        "labels": sample.labels,
        "options": [side, folds, shuffles, bench.seed],
    }
    bench.rows("networks", lambda: _accuracies(networks, sample), **facts)

    counts = measures.resamples(len(sample.labels), RESAMPLES, bench.seed)
    found = tables.measured(bench, networks, sample, counts, side, folds, shuffles)
    bench.rows("measures", lambda: tables.estimates(found, counts), **facts)
    bench.rows("changes", lambda: tables.changes(found, counts), **facts)
    bench.rows("spectrum", lambda: tables.spectra(found, counts, sample.images.shape[2:]), **facts)
    bench.rows("norms", lambda: tables.histograms(found), **facts)

    index_maps(bench, base, trained, sample, donors)
    pictured = _first_of_each_class(sample.labels, shown)
    _show_gradients(bench, networks, sample, pictured)
    if "indices" in trained:
        _show_exchanges(bench, trained["indices"][1], sample, donors, pictured)
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
            known[name] = Network(name, f"{title}, {unpool}, trained here", Defended(made, classifier).eval())
    for name in ("autoencoder", "s2snet"):
        if name not in known:
            bench.need(name)
    for unpool, (_, tuned) in rest.items():
        known[f"unpool_{unpool}"] = Network(
            f"unpool_{unpool}", f"S2SNet, {unpool}, trained here", Defended(tuned, classifier).eval()
        )
    first = ("none", "autoencoder", "s2snet")
    return [known[name] for name in (*first, *(name for name in known if name not in first))]


def _accuracies(networks: list[Network], sample: Sample) -> list[dict[str, Any]]:
    rows = []
    for network in networks:
        right = batched.right(network.module, sample.images, sample.labels)
        accuracy = share(int(right.sum()), len(right))
        rows.append({"network": network.name, "title": network.title, **tables.columns(accuracy)})
    return rows


def _first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """The places of the first image of each of the first `count` classes that come up."""
    firsts = {label: place for place, label in reversed(list(enumerate(labels.tolist())))}
    return torch.tensor(sorted(firsts.values())[:count])


def _show_gradients(bench: Bench, networks: list[Network], sample: Sample, places: Tensor) -> None:
    """Gradients of some images by every network, and what each purifier makes of the images."""
    images, labels = sample.images[places], sample.labels[places]
    rows = _row_names(bench, sample, places)
    names = [network.name.replace("_", " ") for network in networks]
    for objective, title in (
        ("loss_at_label", "Gradients of the loss at the true label"),
        ("fixed_logit", f"Gradients of the logit of one class, {bench.classes[0]}, whatever the image shows"),
    ):
        found = [batched.gradients(network.module, images, labels, OBJECTIVES[objective]) for network in networks]
        pictures = torch.stack([images, *found], dim=1)
        bench.grid(objective, pictures, rows, ["image", *names], title, signed=tuple(names))
    purifiers = {
        name: network.module.purifier
        for name, network in zip(names, networks, strict=True)
        if network.module.has_purifier
    }
    restored = [batched.logits(purifier, images).clamp(0, 1) for purifier in purifiers.values()]
    pictures = torch.stack([images, *restored], dim=1)
    bench.grid("purified", pictures, rows, ["image", *purifiers], "What the classifier is given", CLIPPED)


def _show_exchanges(bench: Bench, tuned: nn.Module, sample: Sample, donors: Tensor, places: Tensor) -> None:
    """What the decoder makes of some images' codes with other indices."""
    images, given = sample.images, sample.images[donors]

    def make() -> dict[str, Tensor]:
        made = [exchanged(tuned, images, given, kind, bench.seed)[places] for kind in EXCHANGES]
        return {"pictures": torch.stack([images[places], given[places], *made], dim=1).clamp(0, 1)}

    facts = {"purifier": tuned, "images": images, "donors": donors, "places": places, "seed": bench.seed}
    pictures = bench.tensors("pictures", make, **facts)["pictures"]
    columns = ["code of", "indices of", *EXCHANGES]
    title = "One image's code with the index maps of another"
    caption = f"Behind `indices of`, the code with indices of that kind; last, own indices with a mean code. {CLIPPED}"
    bench.grid("exchanged", pictures, _row_names(bench, sample, places), columns, title, caption)


def _row_names(bench: Bench, sample: Sample, places: Tensor) -> list[str]:
    shown = zip(sample.labels[places], sample.index[places], strict=True)
    return [f"{bench.classes[label]}, image {index}" for label, index in shown]
