"""Pictures for the page: attacked images beside their steps, and noise that one step makes a class of."""

import torch

from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.linearity.attacked import normal, toward
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.steps import direction, probabilities

SHOWN = 5
ATTACKED = ("softmax", "maxout", "adversarial", "rbf")


def pictures(bench: Bench, nets: dict[str, Net], test: Sample, eps: float) -> None:
    """Two grids: `steps`, each net's own step on the first images; `fooled`, the steps from noise to each class."""
    images, labels = test.images[:SHOWN], test.labels[:SHOWN]
    columns, cells = ["clean"], [images]
    for name in ATTACKED:
        step = direction(nets[name].cost, images, labels)
        columns += [f"step, {name}", f"image, {name}"]
        cells += [step, (images + eps * step).clamp(0, 1)]
    names = [f"{bench.classes[label]}, image {index}" for label, index in zip(labels, test.index, strict=False)]
    bench.grid(
        "steps",
        torch.stack(cells, dim=1),
        names,
        columns,
        f"One sign step of eps = {eps:g} against each net",
        "Clipped to [0, 1] for showing only.",
        signed=tuple(column for column in columns if column.startswith("step")),
    )
    noise = next(normal(test.images.shape[1:], 1, bench.seed, bench.device))
    stepped = [toward(nets["maxout"], noise, wanted, eps) - noise for wanted in range(len(bench.classes))]
    got = [probabilities(nets["maxout"], noise + step)[0, k].item() for k, step in enumerate(stepped)]
    bench.grid(
        "fooled",
        torch.stack(stepped, dim=1),
        ["step"],
        [f"{name}: {100 * p:.0f} %" for name, p in zip(bench.classes, got, strict=True)],
        f"The step of eps = {eps:g} that makes each class of one noise image",
        "With the probability that maxout then gives the class.",
        signed=("step",),
    )
