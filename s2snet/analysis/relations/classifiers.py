"""The classifiers that study=relations compares, and an S2SNet for each: from weights, or trained here."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from s2snet import models
from s2snet.analysis.bench import Bench
from s2snet.config.choices import choose
from s2snet.config.networks import Classifier
from s2snet.models import freeze
from s2snet.models.check_input import check_input
from s2snet.store import weights

NETWORKS = (
    {"label": "softmax", "name": "mlp", "hidden": []},
    {"label": "mlp", "name": "mlp", "hidden": [128]},
    {"label": "mlp deep", "name": "mlp", "hidden": [128, 128, 128]},
    {"label": "cnn narrow", "name": "small_cnn", "widths": [8, 16, 32]},
    {"label": "cnn wide", "name": "small_cnn", "widths": [24, 48, 96]},
    {"label": "cnn deep", "name": "small_cnn", "widths": [12, 24, 48], "convs": 2},
)
OURS = ("label", "purifier")  # keys of an entry that are not in conf/classifier


class Network(NamedTuple):
    """A frozen classifier f and its frozen S2SNet A_S; `kind` is its architecture, such as vgg16."""

    classifier: nn.Module
    purifier: nn.Module
    kind: str

    @property
    def size(self) -> int:
        """The number of parameters of the classifier."""
        return sum(parameter.numel() for parameter in self.classifier.parameters())


def check(networks: Sequence[Mapping[str, Any]]) -> None:
    """ValueError, in one line, for entries that cannot be compared."""
    for entry in networks:
        if "label" not in entry or "name" not in entry:
            raise ValueError(f"study.relations.networks: {dict(entry)} needs a label and a name of conf/classifier")
        choose("study.relations.networks' name", entry["name"], models.CLASSIFIERS)
    labels = [entry["label"] for entry in networks]
    if len(set(labels)) < len(labels) or len(labels) < 3:
        raise ValueError(f"study.relations.networks={labels}: at least 3, each with a label of its own")


def load_networks(
    bench: Bench,
    networks: Sequence[Mapping[str, Any]],
    count: int | None,
    training: Mapping[str, Any],
    autoencoder: str,
    options: Mapping[str, Any] | None,
    stages: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> dict[str, Network]:
    """Return {label: network}; those without weights are trained on `count` images. The S2SNets share one stage 1."""
    check(networks)
    loaded, stage1 = {}, None
    for entry in networks:
        label, classifier = entry["label"], _classifier(bench, entry, count, training)
        if entry.get("purifier"):
            purifier = freeze(weights.load(entry["purifier"])).to(bench.device)
        else:
            if stage1 is None:
                stage1 = bench.purifier("stage1", None, autoencoder, count, True, options=options, stage1=stages[0])
            purifier = bench.purifier(f"s2snet-{_path(label)}", classifier, stage1, count, True, stage2=stages[1])
        loaded[label] = Network(classifier, purifier, entry.get("arch") or entry["name"])
    return loaded


def _classifier(bench: Bench, entry: Mapping[str, Any], count: int | None, training: Mapping[str, Any]) -> nn.Module:
    """Return the frozen classifier of an entry: from its weights, a user's own as it is built, or trained here."""
    config = {key: value for key, value in entry.items() if key not in OURS and key != "weights"}
    config = _data_options(bench, config) | config
    if entry.get("weights") is not None or config["name"] == "custom":
        chosen = Classifier.of(config | {"weights": entry.get("weights")})
        module = freeze(bench.find_classifier(chosen)).to(bench.device)
    else:
        if not len(bench.splits.train):
            raise ValueError(
                f"study.relations.networks: {entry['label']} has no weights, and there are no images to train on"
            )
        train = bench.images(count, "train", spread=True)
        module = bench.trained(
            f"classifier-{_path(entry['label'])}",
            lambda: models.build(**config),
            lambda module: fit(module, train.images, train.labels, **training),
            images=train.images,
            labels=train.labels,
            training=training,
        )
    shape = bench.splits.test[0][0].shape
    check_input(module, entry["label"], shape[0], shape[-1], len(bench.classes))
    return module


def _data_options(bench: Bench, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a network that follow from the data: channels, size, classes, normalisation.

    torchvision's and timm's networks keep their default, ImageNet's normalisation.
    """
    images = bench.splits.test
    facts = {"channels": images[0][0].shape[0], "size": images[0][0].shape[-1], "classes": len(bench.classes)}
    if config["name"] not in models.ENTRIES and images.mean is not None:
        facts |= {"mean": list(images.mean), "std": list(images.std)}
    known = inspect.signature(models.CLASSIFIERS[config["name"]]).parameters
    return {key: value for key, value in facts.items() if key in known}


def fit(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, lr: float, batch_size: int) -> None:
    """Train a classifier in place: cross-entropy, Adam, a learning rate that falls linearly to 0."""
    module.train()
    steps = epochs * -(-len(images) // batch_size)
    optimiser = torch.optim.Adam(module.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), device=images.device).split(batch_size):
            if len(rows) < 2:
                continue  # BatchNorm needs two
            optimiser.zero_grad()
            functional.cross_entropy(module(images[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()


def _path(label: str) -> str:
    """Return a label as part of a file name."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)
