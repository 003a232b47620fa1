"""The tables and pictures of the study `relations`: one function each, named after its file."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from s2snet.analysis import intervals
from s2snet.analysis.batched import logits
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.relations.networks import Network
from s2snet.analysis.relations.orders import Tournament
from s2snet.analysis.relations.transfer import Leader


def _interval(estimate: intervals.Estimate, name: str) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _share(values: np.ndarray, name: str) -> dict[str, float]:
    return _interval(intervals.share(int(values.sum()), len(values)), name)


def networks(
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


def transfer(
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


def leaders(bench: Bench, leaders: dict[str, dict[str, Leader]]) -> None:
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


def cross(bench: Bench, names: list[str], correct: np.ndarray) -> None:
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


def orders(bench: Bench, names: list[str], correct: np.ndarray, tournaments: dict[str, Tournament]) -> None:
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


def pictures(
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
