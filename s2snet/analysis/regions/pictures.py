"""Pictures of the study of regions: maps and parts of some images, and the masks that training images gave."""

from types import SimpleNamespace

import torch
from torch import Tensor

from s2snet.analysis.bench import Bench
from s2snet.analysis.regions.maps import PARTS, partition
from s2snet.analysis.regions.measured import Measured
from s2snet.models.fills import FILLS
from s2snet.models.regions import ranks

COLOURS = {"B": (0.48, 0.29, 0.62), "I": (0.11, 0.37, 0.61), "V": (0.69, 0.27, 0.05), "N": (0.93, 0.92, 0.90)}
KEY = "Parts: B (critical to both) purple, I (to the classifier) blue, V (to the attack) orange, N (neither) grey."


def show(bench: Bench, known: Measured, options: SimpleNamespace) -> None:
    """The grids `images` and `masks`."""
    rows = torch.nonzero(known.fooled).squeeze(1)[: options.pictures]
    images = known.test.images[rows]
    parts = partition(known.importance[options.importance][rows], known.agnostic[rows], options.q)
    hole = parts["V"][:, None].to(images)
    filled = {
        fill: known.knowledge.static(known.knowledge.masks("static", "V", options.q), fill).filled(images, hole)[0]
        for fill in FILLS
    }
    columns = {
        "image": images,
        **{name.replace("_", " "): ranks(maps[rows])[:, None] for name, maps in known.importance.items()},
        "attack, agnostic": ranks(known.agnostic[rows])[:, None],
        "attack, oracle": ranks(known.oracle[rows])[:, None],
        "parts": coloured(parts),
        **{f"without V: {fill}": content for fill, content in filled.items()},
    }
    pictures = torch.stack([_rgb(column) for column in columns.values()], dim=1)
    names = [f"{bench.classes[label]} (image {index})" for label, index in
             zip(known.test.labels[rows].tolist(), known.test.index[rows.cpu()].tolist(), strict=True)]  # fmt: skip
    bench.grid("images", pictures, names, list(columns), "Where the classifier looks and where attacks go",
               f"Maps are ranks, white highest. {KEY}")  # fmt: skip
    means = known.knowledge.means
    looked, attacked = (torch.cat([means["static"][k], means["per_class"][k]]) for k in range(2))
    masks = coloured(partition(looked, attacked, options.q))
    pictures = torch.stack([_rgb(ranks(looked)[:, None]), _rgb(ranks(attacked)[:, None]), masks])
    bench.grid("masks", pictures[:, :11], ["importance", "attack, agnostic", "parts"],
               ["all images", *bench.classes[:10]][: pictures.shape[1]],
               "What training images say, together and by predicted class", KEY)  # fmt: skip


def coloured(parts: dict[str, Tensor]) -> Tensor:
    """The parts [n, H, W] as colours [n, 3, H, W]."""
    tints = [
        torch.tensor(COLOURS[part], device=parts[part].device)[:, None, None] * parts[part][:, None] for part in PARTS
    ]
    return torch.stack(tints).sum(dim=0)


def _rgb(images: Tensor) -> Tensor:
    images = images.float().clamp(0, 1)
    return images if images.shape[1] == 3 else images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
