"""Relations between classifiers in adversarial space and between the signals they read, after the S2SNet paper
(arXiv 1803.07994) and its sister (arXiv 1803.08337). How the papers measured is not known; the definitions are ours.

Several classifiers f_i of one data set, each with an S2SNet A_S,i, and two questions: which of them falls to the
others' perturbations, and whose travel furthest (relations_transfer.py); who reads the image that another one's S2SNet
shows (relations_orders.py). The networks are made in relations_networks.py, the claims in relations_claims.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2snet.analysis import intervals
from s2snet.analysis import relations_claims as claims
from s2snet.analysis import relations_networks as nets
from s2snet.analysis import relations_orders as orders
from s2snet.analysis import relations_transfer as transfer
from s2snet.analysis.bench import Bench, Claim, Sample
from s2snet.analysis.passes import logits, right
from s2snet.analysis.relations_networks import NETWORKS, Network
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
    information = _information(bench, found, _first(sample, nmi_images), bins)

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
    leaders |= (
        {
            f"{question}_behind": found_there
            for question, found_there in transfer.leaders(names, purified, None, bench.seed).items()
        }
        if behind.sum() >= FEWEST
        else {}
    )
    tournaments = {
        kind: orders.tournament(names, correct, relative=kind == "relative", seed=bench.seed)
        for kind in ("plain", "relative")
    }

    _write_networks(bench, found, own, correct, information, smallest)
    _write_transfer(bench, names, {BARE: bare, BEHIND: purified}, made)
    _write_leaders(bench, leaders)
    _write_cross(bench, names, correct)
    _write_orders(bench, names, correct, tournaments)
    _grids(bench, found, sample, chosen, made[levels[len(levels) // 2]], levels[len(levels) // 2], shown)
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


def _first(sample: Sample, count: int) -> Sample:
    return Sample(*(part[:count] for part in sample))


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
    """The first `count` images that all classifiers have right, which the paper's fooling rates are over."""
    rows = torch.from_numpy(np.flatnonzero(own.all(axis=0))[:count])
    if len(rows) < FEWEST:
        raise ValueError(
            f"all classifiers together have {len(rows)} of {own.shape[1]} images right; at least {FEWEST} are needed: "
            "more images (study.relations.images) or better networks"
        )
    device = sample.images.device
    return Sample(sample.images[rows.to(device)], sample.labels[rows.to(device)], sample.index[rows])


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


def _interval(estimate: intervals.Estimate, name: str) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _share(values: np.ndarray, name: str) -> dict[str, float]:
    return _interval(intervals.share(int(values.sum()), len(values)), name)


def _write_networks(
    bench: Bench,
    found: Mapping[str, Network],
    own: np.ndarray,
    correct: np.ndarray,
    information: np.ndarray,
    smallest: np.ndarray,
) -> None:
    """networks.csv: what each classifier is and what it has alone."""
    bench.rows(
        "networks",
        lambda: [
            {
                "network": name,
                "kind": net.kind,
                "parameters": net.size,
                **_share(own[k], "accuracy"),
                **_share(correct[k, k], "accuracy_behind"),
                "images": own.shape[1],
                **_interval(intervals.median(smallest[k]), "median_budget"),
                "attacked": smallest.shape[1],
                **_interval(intervals.mean(information[k]), "nmi"),
                "nmi_images": information.shape[1],
            }
            for k, (name, net) in enumerate(found.items())
        ],
        networks={name: net.classifier for name, net in found.items()},
        measured=[torch.from_numpy(part) for part in (own, correct, information, smallest)],
    )


def _write_transfer(
    bench: Bench, names: list[str], fooled: dict[str, dict[float, np.ndarray]], made: dict[float, list[dict]]
) -> None:
    """transfer.csv: each cell of each transfer matrix. `least_level` is the level that the shortest of them has."""
    bench.rows(
        "transfer",
        lambda: [
            {
                "judges": judges,
                "level": level,
                "source": source,
                "judge": judge,
                **_share(matrix[i, j], "fooled"),
                "n": matrix.shape[2],
                "least_level": float(made[level][i]["reached"].min()),
            }
            for judges, matrices in fooled.items()
            for level, matrix in matrices.items()
            if matrix.shape[2]
            for i, source in enumerate(names)
            for j, judge in enumerate(names)
        ],
        names=names,
        levels=list(made),
        fooled=[torch.from_numpy(matrix) for matrices in fooled.values() for matrix in matrices.values()],
        reached=[part["reached"] for parts in made.values() for part in parts],
    )


def _write_leaders(bench: Bench, leaders: dict[str, dict[str, transfer.Leader]]) -> None:
    """leaders.csv: who comes first in each question, and by how much before the second."""
    rows = [
        {
            "question": question,
            "at": at,
            "first": leader.name,
            **_interval(leader.value, "value"),
            "second": leader.second,
            **_interval(leader.lead, "lead"),
            "clear": leader.clear,
            "n": leader.lead.n,
        }
        for question, places in leaders.items()
        for at, leader in places.items()
    ]
    bench.rows("leaders", lambda: rows, rows=rows)


def _write_cross(bench: Bench, names: list[str], correct: np.ndarray) -> None:
    """cross.csv: the accuracy of each reader on what each S2SNet shows."""
    bench.rows(
        "cross",
        lambda: [
            {"signal": signal, "reader": reader, **_share(correct[i, j], "accuracy"), "n": correct.shape[2]}
            for i, signal in enumerate(names)
            for j, reader in enumerate(names)
        ],
        names=names,
        correct=torch.from_numpy(correct),
    )


def _write_orders(
    bench: Bench, names: list[str], correct: np.ndarray, tournaments: dict[str, orders.Tournament]
) -> None:
    """pairs.csv: who of two reads the other's signal better; orders.csv: what comes of it."""
    rows = [
        {
            "first": names[i],
            "second": names[j],
            **_interval(intervals.mean(correct[j, i].astype(float) - correct[i, j], bench.seed), "advantage"),
            **_interval(
                intervals.mean(
                    (correct[j, i].astype(float) - correct[i, i]) - (correct[i, j].astype(float) - correct[j, j]),
                    bench.seed,
                ),
                "relative",
            ),
            "n": correct.shape[2],
        }
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    bench.rows("pairs", lambda: rows, rows=rows)
    rows = [
        {
            "kind": kind,
            "order": found.text,
            "is_order": found.is_order,
            "circular_triads": found.triads,
            "consistence": found.consistence,
            "by_chance": found.chance,
            "orders_among_resamples": found.share,
        }
        for kind, found in tournaments.items()
    ]
    bench.rows("orders", lambda: rows, rows=rows)


def _grids(
    bench: Bench,
    found: Mapping[str, Network],
    sample: Sample,
    chosen: Sample,
    made: list[dict[str, Tensor]],
    level: float,
    shown: int,
) -> None:
    """What each S2SNet shows of the first images, and the perturbations at the middle level."""
    images = sample.images[:shown]
    columns = [bench.classes[int(label)] for label in sample.labels[:shown]]
    seen = [logits(net.purifier, images).clamp(0, 1) for net in found.values()]
    bench.grid(
        "signals",
        torch.stack([images, *seen]),
        ["image", *found],
        columns,
        "What each S2SNet shows",
        "The image, and it behind the S2SNet of each classifier.",
    )
    bench.grid(
        "perturbations",
        torch.stack([part["shown"] for part in made]),
        list(found),
        [bench.classes[int(label)] for label in chosen.labels[:shown]],
        f"Perturbations at normalised L2 {level:g}",
        "Made on each classifier, for images that all of them have right.",
        signed=tuple(found),
    )
