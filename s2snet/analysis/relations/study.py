"""Relations of classifiers in adversarial space and by the signals they read (arXiv 1803.07994, 1803.08337).

Several classifiers f_i of one data set, each with an S2SNet A_S,i, and two questions: which of them is fooled by the
others' perturbations, and whose perturbations transfer best; and which of them reads the image behind another one's
S2SNet. How the papers measured it is not known; the definitions are ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2snet.analysis.batched import logits, right
from s2snet.analysis.bench import Bench, Sample, evenly
from s2snet.analysis.claim import Claim
from s2snet.analysis.relations import claims, measures, rankings, tables
from s2snet.analysis.relations.classifiers import NETWORKS, Network, load_networks
from s2snet.models import Defended

VERSION = 1
FEWEST = 10  # images that all classifiers must have right
BARE, BEHIND = "bare", "S2SNet"  # a judge f_j, and f_j behind its A_S,j


def run(
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
    """Return claims about transfer matrices at each level, the order in the cross matrix, and mutual information.

    conf/study/relations.yaml explains the options. Each attacked image costs each network (steps + 1) x levels +
    budget_steps passes each way, and one forward per level and judge, with and without S2SNet.
    """
    levels = sorted(set(levels))
    if not levels or levels[0] <= 0:
        raise ValueError(f"study.relations.levels={levels}: normalised L2, above 0")
    training = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
    stages = {"epochs": stage1_epochs}, {"epochs": stage2_epochs}
    compared = load_networks(bench, networks, train_images, training, autoencoder, autoencoder_options, stages)
    names = list(compared)
    sample = bench.images(images, spread=True)
    own = _right(bench, "right", [net.classifier for net in compared.values()], sample)
    correct = np.stack([_read(bench, net, compared, sample) for net in compared.values()])
    few = _some(sample, evenly(min(nmi_images, len(sample.index)), len(sample.index)))
    information = _information(bench, compared, few, bins)

    chosen = _all_right(own, sample, attacked)
    smallest = np.stack([_budgets(bench, net.classifier, chosen, budget_steps) for net in compared.values()])
    options = {"steps": steps, "loss": loss, "seed": bench.seed}
    examples = {
        level: [_judged(bench, name, compared, chosen, level, shown, options) for name in names] for level in levels
    }
    behind = _right(bench, "right_behind", [_defended(net) for net in compared.values()], chosen).all(axis=0)
    bare = {level: np.stack([part["bare"].cpu().numpy() for part in parts]) for level, parts in examples.items()}
    purified = {
        level: np.stack([part["behind"].cpu().numpy() for part in parts])[..., behind]
        for level, parts in examples.items()
    }
    leaders = rankings.find_leaders(names, bare, smallest, bench.seed)
    if behind.sum() >= FEWEST:
        leaders_behind = rankings.find_leaders(names, purified, None, bench.seed)
        leaders |= {f"{question}_behind": places for question, places in leaders_behind.items()}
    tournaments = {
        kind: rankings.tournament(names, correct, relative=kind == "relative", seed=bench.seed)
        for kind in ("plain", "relative")
    }

    middle = levels[len(levels) // 2]
    tables.networks(bench, compared, own, correct, information, smallest)
    tables.transfer(bench, names, {BARE: bare, BEHIND: purified}, examples)
    tables.leaders(bench, leaders)
    tables.cross(bench, names, correct)
    tables.orders(bench, names, correct, tournaments)
    tables.add_pictures(bench, compared, sample, chosen, examples[middle], middle, shown)
    setting = claims.Setting(bench.data, tuple(net.kind for net in compared.values()), tuple(names))
    sizes = np.array([net.size for net in compared.values()])
    return [
        *claims.transfer(leaders, bare, setting),
        *claims.defended(leaders, {level: matrix[..., behind] for level, matrix in bare.items()}, purified, setting),
        *claims.orders(names, correct, own, sizes, information, tournaments, setting, bench.seed),
    ]


def _defended(net: Network) -> nn.Module:
    return Defended(net.purifier, net.classifier).eval()


def _some(sample: Sample, rows: Sequence[int] | np.ndarray) -> Sample:
    """Return these images of the sample."""
    rows = torch.as_tensor(rows, dtype=torch.int64)
    return Sample(*(part[rows.to(part.device)] for part in sample))


def _right(bench: Bench, name: str, modules: list[nn.Module], sample: Sample) -> np.ndarray:
    """Return Bool [modules, n]: whether each module is right about each image."""

    def make() -> dict[str, Tensor]:
        return {"right": torch.stack([right(module, sample.images, sample.labels) for module in modules])}

    return bench.tensors(name, make, modules=modules, images=sample.images, labels=sample.labels)["right"].cpu().numpy()


def _read(bench: Bench, signal: Network, compared: Mapping[str, Network], sample: Sample) -> np.ndarray:
    """Return Bool [reader, n]: whether each reader is right about the images behind the S2SNet of `signal`."""
    readers = [Defended(signal.purifier, net.classifier).eval() for net in compared.values()]
    return _right(bench, "read", readers, sample)


def _all_right(own: np.ndarray, sample: Sample, count: int) -> Sample:
    """Return `count` images that all classifiers have right, evenly spread over these."""
    rows = np.flatnonzero(own.all(axis=0))
    if len(rows) < FEWEST:
        raise ValueError(
            f"all classifiers together have {len(rows)} of {own.shape[1]} images right; at least {FEWEST} are needed: "
            "use more images (study.relations.images) or better networks"
        )
    return _some(sample, rows[evenly(min(count, len(rows)), len(rows))])


def _budgets(bench: Bench, module: nn.Module, sample: Sample, steps: int) -> np.ndarray:
    """Return the smallest normalised L2 that fools a classifier itself, [n]."""

    def make() -> dict[str, Tensor]:
        return {"distance": measures.budgets(module, sample.images, sample.labels, steps)}

    facts = {"module": module, "images": sample.images, "labels": sample.labels, "steps": steps}
    return bench.tensors("budgets", make, **facts)["distance"].cpu().numpy()


def _judged(
    bench: Bench,
    name: str,
    compared: Mapping[str, Network],
    sample: Sample,
    level: float,
    shown: int,
    options: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return which judges the examples of one source at one level fool, without and with their S2SNets.

    `bare` and `behind` are Bool [judge, n], `reached` [n] the levels reached, `shown` the first perturbations.
    """
    judges = [net.classifier for net in compared.values()]
    defended = [_defended(net) for net in compared.values()]

    def make() -> dict[str, Tensor]:
        bench.log(f"{bench.study}: examples against {name} at normalised L2 {level:g}")
        source = compared[name].classifier
        adversarial = measures.craft(source, sample.images, sample.labels, sample.index, level, **options)
        return {
            "bare": torch.stack([~right(judge, adversarial, sample.labels) for judge in judges]),
            "behind": torch.stack([~right(judge, adversarial, sample.labels) for judge in defended]),
            "reached": measures.normalised_l2(adversarial, sample.images),
            "shown": (adversarial - sample.images)[:shown],
        }

    facts = {"source": compared[name].classifier, "judges": defended, "level": level, "shown": shown, **options}
    return bench.tensors("fooled", make, images=sample.images, labels=sample.labels, **facts)


def _information(bench: Bench, compared: Mapping[str, Network], sample: Sample, bins: int) -> np.ndarray:
    """Return the normalised mutual information of each image and its output of each S2SNet, [network, n]."""
    information = []
    for net in compared.values():

        def make(net=net) -> dict[str, Tensor]:
            purified = logits(net.purifier, sample.images)  # the outputs of any module
            return {"nmi": torch.from_numpy(measures.mutual_information(sample.images, purified, bins))}

        part = bench.tensors("nmi", make, purifier=net.purifier, images=sample.images, bins=bins)
        information.append(part["nmi"].cpu().numpy())
    return np.stack(information)
