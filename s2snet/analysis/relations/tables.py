"""The tables and pictures of study=relations: one function per table."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from s2snet.analysis import intervals
from s2snet.analysis.batched import logits
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.relations.classifiers import Network
from s2snet.analysis.relations.rankings import Leader, Tournament


def _share(values: np.ndarray, name: str) -> dict[str, float]:
    """Return the share of true values with its interval as columns."""
    return intervals.share(int(values.sum()), len(values)).columns(name)


def networks(
    bench: Bench,
    compared: Mapping[str, Network],
    own: np.ndarray,
    correct: np.ndarray,
    information: np.ndarray,
    smallest: np.ndarray,
) -> None:
    """Fill `networks`: each classifier's kind, size, accuracies, median budget and mutual information."""
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
                **intervals.median(smallest[k]).columns("median_budget"),
                "attacked": smallest.shape[1],
                **intervals.mean(information[k]).columns("nmi"),
                "nmi_images": information.shape[1],
            }
            for k, (name, net) in enumerate(compared.items())
        ],
        networks={name: net.classifier for name, net in compared.items()},
        measured=[torch.from_numpy(part) for part in (own, correct, information, smallest)],
    )


def transfer(
    bench: Bench, names: list[str], fooled: dict[str, dict[float, np.ndarray]], examples: dict[float, list[dict]]
) -> None:
    """Fill `transfer`: each cell of each transfer matrix; `least_level` is the smallest level that was reached."""
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
                "least_level": float(examples[level][i]["reached"].min()),
            }
            for judges, matrices in fooled.items()
            for level, matrix in matrices.items()
            if matrix.shape[2]
            for i, source in enumerate(names)
            for j, judge in enumerate(names)
        ],
        names=names,
        levels=list(examples),
        fooled=[torch.from_numpy(matrix) for matrices in fooled.values() for matrix in matrices.values()],
        reached=[part["reached"] for parts in examples.values() for part in parts],
    )


def leaders(bench: Bench, leaders: dict[str, dict[str, Leader]]) -> None:
    """Fill `leaders`: the first network of each question, and its lead over the second."""
    rows = [
        {
            "question": question,
            "at": at,
            "first": leader.name,
            **leader.value.columns("value"),
            "second": leader.second,
            **leader.lead.columns("lead"),
            "clear": leader.clear,
            "n": leader.lead.n,
        }
        for question, places in leaders.items()
        for at, leader in places.items()
    ]
    bench.rows("leaders", lambda: rows, rows=rows)


def cross(bench: Bench, names: list[str], correct: np.ndarray) -> None:
    """Fill `cross`: the accuracy of each reader behind each S2SNet."""
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


def orders(bench: Bench, names: list[str], correct: np.ndarray, tournaments: dict[str, Tournament]) -> None:
    """Fill `pairs`, which of two reads the other's signal better, and `orders`, the tournaments."""
    rows = [
        {
            "first": names[i],
            "second": names[j],
            **intervals.mean(correct[j, i].astype(float) - correct[i, j], bench.seed).columns("advantage"),
            **intervals.mean(
                (correct[j, i].astype(float) - correct[i, i]) - (correct[i, j].astype(float) - correct[j, j]),
                bench.seed,
            ).columns("relative"),
            "n": correct.shape[2],
        }
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    bench.rows("pairs", lambda: rows, rows=rows)
    rows = [
        {
            "kind": kind,
            "order": tournament.text,
            "is_order": tournament.is_order,
            "circular_triads": tournament.triads,
            "consistence": tournament.consistence,
            "by_chance": tournament.chance,
            "orders_among_resamples": tournament.share,
        }
        for kind, tournament in tournaments.items()
    ]
    bench.rows("orders", lambda: rows, rows=rows)


def add_pictures(
    bench: Bench,
    compared: Mapping[str, Network],
    sample: Sample,
    attacked: Sample,
    examples: list[dict[str, Tensor]],
    level: float,
    shown: int,
) -> None:
    """Add the first images behind each S2SNet, and the perturbations at the middle level."""
    images = sample.images[:shown]
    columns = [bench.classes[int(label)] for label in sample.labels[:shown]]
    purified = [logits(net.purifier, images).clamp(0, 1) for net in compared.values()]
    bench.add_grid(
        "signals",
        torch.stack([images, *purified]),
        ["image", *compared],
        columns,
        "Images behind each S2SNet",
        "The image, then its output of the S2SNet of each classifier.",
    )
    bench.add_grid(
        "perturbations",
        torch.stack([part["shown"] for part in examples]),
        list(compared),
        [bench.classes[int(label)] for label in attacked.labels[:shown]],
        f"Perturbations at normalised L2 {level:g}",
        "Crafted against each classifier, for images that all of them classify correctly.",
        signed=tuple(compared),
    )
