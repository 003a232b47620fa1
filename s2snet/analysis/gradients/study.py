"""Input gradients behind an autoencoder and an S2SNet, and the information in index maps (arXiv 1803.07994).

The networks are f, f∘A (after stage 1), f∘A_S (after stage 2), every other chosen defence, and S2SNets trained here
with different unpoolings. Their gradients are measured in six ways, then index maps are exchanged.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.claim import Claim
from s2snet.analysis.gradients import claims, measures, tables
from s2snet.analysis.gradients.tables import OBJECTIVES, Network, Trained
from s2snet.analysis.intervals import RESAMPLES, share
from s2snet.config.choices import choose
from s2snet.models import Defended
from s2snet.models.segnet import UNPOOLINGS

VERSION = 1
CLIPPED = "Clipped to [0, 1] for display; the classifier gets them as they are."


def run(
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
    """Return claims about the gradients of all networks; conf/study/gradients.yaml explains the options.

    Cost: four forwards and backwards for each image and network, and the training of the S2SNets.
    """
    bounded = {"images": images, "side": side, "folds": folds, "shuffles": shuffles, "epochs": epochs, "shown": shown}
    for name, value in bounded.items():
        least = 2 if name in ("images", "folds") else 1
        if value < least:
            raise ValueError(f"study.gradients.{name}={value}: at least {least}")
    for unpool in unpoolings:
        choose("study.gradients.unpoolings", unpool, UNPOOLINGS)
    sample = bench.images(images)
    donors = measures.draw_donors(sample.labels, bench.seed)
    measures.check_folds(sample.labels.cpu().numpy(), folds)  # before an hour of training
    base = bench.defended("none")
    trained: Trained = {}
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
    measured = tables.measure(bench, networks, sample, counts, side, folds, shuffles)
    bench.rows("measures", lambda: tables.estimates(measured, counts), **facts)
    bench.rows("changes", lambda: tables.changes(measured, counts), **facts)
    bench.rows("spectrum", lambda: tables.spectra(measured, counts, sample.images.shape[2:]), **facts)
    bench.rows("norms", lambda: tables.histograms(measured), **facts)

    tables.index_maps(bench, base, trained, sample, donors)
    pictured = _first_of_each_class(sample.labels, shown)
    _add_gradients(bench, networks, sample, pictured)
    if "indices" in trained:
        _add_exchanges(bench, trained["indices"][1], sample, donors, pictured)
    return claims.all_claims(bench.tables)


def _networks(bench: Bench, trained: Trained) -> list[Network]:
    """Return none, autoencoder and s2snet, the other defences, and what was trained here.

    Without weights of autoencoder and s2snet, the first networks trained here take their place.
    """
    classifier = bench.defended("none").classifier
    known = {name: Network(name, defence.title, defence.module) for name, defence in bench.defences.items()}
    rest = dict(trained)
    if not {"autoencoder", "s2snet"} <= known.keys() and rest:
        unpool = next(iter(rest))
        for name, title, purifier in zip(
            ("autoencoder", "s2snet"), ("Autoencoder", "S2SNet"), rest.pop(unpool), strict=True
        ):
            known[name] = Network(name, f"{title}, {unpool}, trained here", Defended(purifier, classifier).eval())
    for name in ("autoencoder", "s2snet"):
        if name not in known:
            bench.defended(name)  # raises the error
    for unpool, (_, tuned) in rest.items():
        known[f"unpool_{unpool}"] = Network(
            f"unpool_{unpool}", f"S2SNet, {unpool}, trained here", Defended(tuned, classifier).eval()
        )
    first = ("none", "autoencoder", "s2snet")
    return [known[name] for name in (*first, *(name for name in known if name not in first))]


def _accuracies(networks: list[Network], sample: Sample) -> list[dict[str, Any]]:
    """Return the rows of `networks`."""
    rows = []
    for network in networks:
        correct = batched.right(network.module, sample.images, sample.labels)
        accuracy = share(int(correct.sum()), len(correct))
        rows.append({"network": network.name, "title": network.title, **tables.columns(accuracy)})
    return rows


def _first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """Return the positions of the first image of each of the first `count` classes that occur."""
    firsts = {label: place for place, label in reversed(list(enumerate(labels.tolist())))}
    return torch.tensor(sorted(firsts.values())[:count])


def _add_gradients(bench: Bench, networks: list[Network], sample: Sample, places: Tensor) -> None:
    """Add the gradients of some images by every network, and the images behind each purifier."""
    images, labels = sample.images[places], sample.labels[places]
    rows = _row_names(bench, sample, places)
    names = [network.name.replace("_", " ") for network in networks]
    for objective, title in (
        ("loss_at_label", "Gradients of the loss at the true label"),
        ("fixed_logit", f"Gradients of the logit of one class, {bench.classes[0]}, whatever the image shows"),
    ):
        gradients = [batched.gradients(network.module, images, labels, OBJECTIVES[objective]) for network in networks]
        pictures = torch.stack([images, *gradients], dim=1)
        bench.add_grid(objective, pictures, rows, ["image", *names], title, signed=tuple(names))
    purifiers = {
        name: network.module.purifier
        for name, network in zip(names, networks, strict=True)
        if network.module.has_purifier
    }
    purified = [batched.logits(purifier, images).clamp(0, 1) for purifier in purifiers.values()]
    pictures = torch.stack([images, *purified], dim=1)
    bench.add_grid("purified", pictures, rows, ["image", *purifiers], "What the classifier gets", CLIPPED)


def _add_exchanges(bench: Bench, tuned: nn.Module, sample: Sample, donors: Tensor, places: Tensor) -> None:
    """Add the decoder's output for some images' codes with other indices."""
    images, donated = sample.images, sample.images[donors]

    def make() -> dict[str, Tensor]:
        outputs = [
            measures.exchange_indices(tuned, images, donated, kind, bench.seed)[places] for kind in measures.EXCHANGES
        ]
        return {"pictures": torch.stack([images[places], donated[places], *outputs], dim=1).clamp(0, 1)}

    facts = {"purifier": tuned, "images": images, "donors": donors, "places": places, "seed": bench.seed}
    pictures = bench.tensors("pictures", make, **facts)["pictures"]
    columns = ["code of", "indices of", *measures.EXCHANGES]
    title = "One image's code with the index maps of another"
    caption = (
        "Columns after `indices of`: the code with indices of that kind; the last has its own indices and a mean "
        f"code. {CLIPPED}"
    )
    bench.add_grid("exchanged", pictures, _row_names(bench, sample, places), columns, title, caption)


def _row_names(bench: Bench, sample: Sample, places: Tensor) -> list[str]:
    """Return the class and the index of these images."""
    shown = zip(sample.labels[places], sample.index[places], strict=True)
    return [f"{bench.classes[label]}, image {index}" for label, index in shown]
