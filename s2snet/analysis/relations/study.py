"""Relations between classifiers in adversarial space and between the signals they read, after the S2SNet paper
(arXiv 1803.07994) and its sister (arXiv 1803.08337). How the papers measured is not known; the definitions are ours.

Several classifiers f_i of one data set, each with an S2SNet A_S,i, and two questions: which of them falls to the
others' perturbations, and whose travel furthest (transfer.py); who reads the image that another one's S2SNet
shows (orders.py). The networks are made in networks.py, the claims in claims.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2snet.analysis.batched import logits, right
from s2snet.analysis.bench import Bench, Claim, Sample, evenly
from s2snet.analysis.relations import claims, orders, tables, transfer
from s2snet.analysis.relations import networks as nets
from s2snet.analysis.relations.networks import NETWORKS, Network
from s2snet.models import Defended

FEWEST = 10  # images that all classifiers have right
BARE, BEHIND = "bare", "S2SNet"  # a judge f_j, and f_j behind its A_S,j


def relations(
    bench: Bench,
    *,
    networks: Sequence[Mapping[str, Any]] = NETWORKS,
    images: int | None = 2000,
    attacked: int = 200,
    levels: Sequence[float] = (0.05, 0.1, 0.2),
    steps: int = 20,
    loss: str = "margin",
    budget_steps: int = 30,
    train_images: int | None = 5000,
    epochs: int = 12,
    lr: float = 4e-3,
    batch_size: int = 32,
    autoencoder: str = "segnet_small",
    autoencoder_options: Mapping[str, Any] | None = None,
    stage1_epochs: int = 8,
    stage2_epochs: int = 4,
    bins: int = 32,
    nmi_images: int = 100,
    shown: int = 8,
) -> list[Claim]:
    """Transfer matrices at each level, the cross matrix and whether it is an order, mutual information.

    conf/study/relations.yaml says what each option is. Each attacked image costs each network (steps + 1) x levels +
    budget_steps passes each way, and is judged once a level by each judge with and without S2SNet.
    """
    levels = sorted(set(levels))
    if not levels or levels[0] <= 0:
        raise ValueError(f"study.relations.levels={levels}: normalised L2, above 0")
    training = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
    stages = {"epochs": stage1_epochs}, {"epochs": stage2_epochs}
    found = nets.find(bench, networks, train_images, training, autoencoder, autoencoder_options, stages)
    names = list(found)
    sample = bench.images(images, spread=True)
    own = _right(bench, "right", [net.classifier for net in found.values()], sample)
    correct = np.stack([_read(bench, name, found, sample) for name in names])
    few = _some(sample, evenly(min(nmi_images, len(sample.index)), len(sample.index)))
    information = _information(bench, found, few, bins)

    chosen = _all_right(own, sample, attacked)
    smallest = np.stack([_budgets(bench, name, found[name].classifier, chosen, budget_steps) for name in names])
    options = {"steps": steps, "loss": loss, "seed": bench.seed}
    made = {level: [_judged(bench, name, found, chosen, level, shown, options) for name in names] for level in levels}
    behind = _right(bench, "right_behind", [_defended(net) for net in found.values()], chosen).all(axis=0)
    bare = {level: np.stack([part["bare"].cpu().numpy() for part in parts]) for level, parts in made.items()}
    purified = {
        level: np.stack([part["behind"].cpu().numpy() for part in parts])[..., behind] for level, parts in made.items()
    }
    leaders = transfer.leaders(names, bare, smallest, bench.seed)
    if behind.sum() >= FEWEST:
        there = transfer.leaders(names, purified, None, bench.seed)
        leaders |= {f"{question}_behind": places for question, places in there.items()}
    tournaments = {
        kind: orders.tournament(names, correct, relative=kind == "relative", seed=bench.seed)
        for kind in ("plain", "relative")
    }

    tables.networks(bench, found, own, correct, information, smallest)
    tables.transfer(bench, names, {BARE: bare, BEHIND: purified}, made)
    tables.leaders(bench, leaders)
    tables.cross(bench, names, correct)
    tables.orders(bench, names, correct, tournaments)
    tables.pictures(bench, found, sample, chosen, made[levels[len(levels) // 2]], levels[len(levels) // 2], shown)
    setting = claims.Setting(bench.data, tuple(net.kind for net in found.values()), tuple(names))
    sizes = np.array([net.size for net in found.values()])
    return [
        *claims.of_transfer(leaders, bare, setting),
        *claims.of_defended(leaders, {level: matrix[..., behind] for level, matrix in bare.items()}, purified, setting),
        *claims.of_orders(names, correct, own, sizes, information, tournaments, setting, bench.seed),
    ]


relations.version = 1


def _defended(net: Network) -> nn.Module:
    return Defended(net.purifier, net.classifier).eval()


def _some(sample: Sample, rows: Sequence[int] | np.ndarray) -> Sample:
    """These images of the sample."""
    rows = torch.as_tensor(rows, dtype=torch.int64)
    return Sample(*(part[rows.to(part.device)] for part in sample))


def _right(bench: Bench, name: str, modules: list[nn.Module], sample: Sample) -> np.ndarray:
    """Bool [modules, n]: who is right about which image."""

    def make() -> dict[str, Tensor]:
        return {"right": torch.stack([right(module, sample.images, sample.labels) for module in modules])}

    return bench.tensors(name, make, modules=modules, images=sample.images, labels=sample.labels)["right"].cpu().numpy()


def _read(bench: Bench, name: str, found: Mapping[str, Network], sample: Sample) -> np.ndarray:
    """Bool [reader, n]: who is right about the images as the S2SNet of `name` shows them."""
    purifier = found[name].purifier
    return _right(bench, "read", [Defended(purifier, net.classifier).eval() for net in found.values()], sample)


def _all_right(own: np.ndarray, sample: Sample, count: int) -> Sample:
    """`count` images that all classifiers have right, evenly from all of those."""
    rows = np.flatnonzero(own.all(axis=0))
    if len(rows) < FEWEST:
        raise ValueError(
            f"all classifiers together have {len(rows)} of {own.shape[1]} images right; at least {FEWEST} are needed: "
            "more images (study.relations.images) or better networks"
        )
    return _some(sample, rows[evenly(min(count, len(rows)), len(rows))])


def _budgets(bench: Bench, name: str, module: nn.Module, sample: Sample, steps: int) -> np.ndarray:
    """The smallest normalised L2 that fools each classifier itself, [n]."""

    def make() -> dict[str, Tensor]:
        return {"distance": transfer.budgets(module, sample.images, sample.labels, steps)}

    facts = {"module": module, "images": sample.images, "labels": sample.labels, "steps": steps}
    return bench.tensors("budgets", make, **facts)["distance"].cpu().numpy()


def _judged(
    bench: Bench, name: str, found: Mapping[str, Network], sample: Sample, level: float, shown: int, options: dict
) -> dict[str, Tensor]:
    """What the examples of one source at one level do: `bare` and `behind` Bool [judge, n], `reached` [n], and the
    first `shown` perturbations."""
    judges = [net.classifier for net in found.values()]
    defended = [_defended(net) for net in found.values()]

    def make() -> dict[str, Tensor]:
        bench.say(f"{bench.study}: examples on {name} at normalised L2 {level:g}")
        source = found[name].classifier
        adversarial = transfer.craft(source, sample.images, sample.labels, sample.index, level, **options)
        return {
            "bare": torch.stack([~right(judge, adversarial, sample.labels) for judge in judges]),
            "behind": torch.stack([~right(judge, adversarial, sample.labels) for judge in defended]),
            "reached": transfer.normalised_l2(adversarial, sample.images),
            "shown": (adversarial - sample.images)[:shown],
        }

    facts = {"source": found[name].classifier, "judges": defended, "level": level, "shown": shown, **options}
    return bench.tensors("fooled", make, images=sample.images, labels=sample.labels, **facts)


def _information(bench: Bench, found: Mapping[str, Network], sample: Sample, bins: int) -> np.ndarray:
    """The normalised mutual information of each image and what each S2SNet shows of it, [network, n]."""

    def make(net: Network) -> dict[str, Tensor]:
        seen = logits(net.purifier, sample.images)  # any module's answers
        return {"nmi": torch.from_numpy(orders.mutual_information(sample.images, seen, bins))}

    return np.stack(
        [
            bench.tensors("nmi", lambda net=net: make(net), purifier=net.purifier, images=sample.images, bins=bins)[
                "nmi"
            ]
            .cpu()
            .numpy()
            for net in found.values()
        ]
    )
