"""Perturbations that travel: made on one classifier at a given normalised L2, judged by all; who is fooled most by
the others', whose fool the others most. Fooled is Bool [source, judge, n] over images that all judges have right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from s2snet.analysis import intervals
from s2snet.analysis.batched import right
from s2snet.analysis.intervals import Estimate
from s2snet.attacks import Noise, fmn, pgd
from s2snet.attacks.balls import spread

BATCH = 64  # of images of about equal length
OWN_BUDGET = "own budget"  # where a leader was found: the budget that fools a classifier itself, or a level


def lengths(images: Tensor) -> Tensor:
    """||x||2 of each image in [0, 1] units, float64 [n]: what a normalised L2 is relative to."""
    return images.double().flatten(1).norm(dim=1)


def normalised_l2(adversarial: Tensor, images: Tensor) -> Tensor:
    """||x' - x||2 / ||x||2 of each image, float64 [n]; 0 for an image that is black and stays so."""
    moved = (adversarial.double() - images.double()).flatten(1).norm(dim=1)
    return torch.where(moved > 0, moved / lengths(images), 0)


def to_level(adversarial: Tensor, images: Tensor, level: float) -> Tensor:
    """The images moved along x' - x until ||x'' - x||2 / ||x||2 is `level`, within [0, 1]; like images.

    What leaves the box is cut, and the rest goes on; so the level is reached to 1e-4 of it wherever the box has room
    along that direction. An image that was not moved stays.
    """
    delta = adversarial - images
    goal = level * lengths(images)
    most = images.flatten(1).shape[1] ** 0.5  # no two images are farther apart
    largest = delta.flatten(1).abs().amax(dim=1).clamp(min=1e-12)
    low, high = torch.zeros_like(goal), (most / largest).double()
    for _ in range(48):  # the distance rises with the factor: cut in half
        middle = (low + high) / 2
        moved = (images + spread(middle.to(delta.dtype), delta) * delta).clamp(0, 1)
        beyond = (moved - images).double().flatten(1).norm(dim=1) > goal
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return (images + spread(low.to(delta.dtype), delta) * delta).clamp(0, 1)


def craft(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    level: float,
    steps: int = 20,
    loss: str = "margin",
    seed: int = 0,
) -> Tensor:
    """Adversarial images at normalised L2 `level` of each image itself, like images.

    PGD takes one radius a batch, so images of about equal length go together, under the radius of their mean, and each
    perturbation is then brought to its own image's level (`to_level`). steps + 1 forwards, steps backwards each.
    """
    made = images.clone()
    length = lengths(images)
    for rows in length.argsort().split(BATCH):
        eps = level * float(length[rows].mean())
        found = pgd(
            module,
            images[rows],
            labels[rows],
            eps=eps,
            norm="l2",
            steps=steps,
            loss=loss,
            noise=Noise(seed, index[rows.cpu()]),
        )
        made[rows] = to_level(found, images[rows], level)
    return made


def budgets(module: nn.Module, images: Tensor, labels: Tensor, steps: int = 40) -> Tensor:
    """The smallest normalised L2 that fools the module itself, as FMN finds it, float64 [n].

    Where it finds none: the distance of the box's farthest corner, which is above what any attack needs.
    """
    found = torch.cat(
        [
            fmn(module, part, label, steps=steps)
            for part, label in zip(images.split(256), labels.split(256), strict=True)
        ]
    )
    distance = normalised_l2(found, images)
    farthest = normalised_l2((images < 0.5).to(images.dtype), images)
    return torch.where(right(module, found, labels), farthest, distance)


@dataclass(frozen=True)
class Leader:
    """Who comes first, with what, and by how much before the second; paired bootstrap over the images."""

    name: str
    value: Estimate
    second: str
    lead: Estimate

    @property
    def clear(self) -> bool:
        """Whether the 95 % interval of the lead stays above 0, so that the first is distinguishable from the second."""
        return self.lead.low > 0


def leader(names: Sequence[str], scores: np.ndarray, statistic=np.mean, lowest: bool = False, seed: int = 0) -> Leader:
    """The network whose scores [networks, n] have the highest statistic (or the lowest), against the next one."""
    scores = np.asarray(scores, dtype=np.float64)
    sign = -1 if lowest else 1
    values = [statistic(row) for row in scores]
    first, second = sorted(range(len(names)), key=lambda k: -sign * values[k])[:2]
    pair = scores[[first, second]].T

    def lead(rows: np.ndarray) -> float:
        return sign * float(statistic(rows[:, 0]) - statistic(rows[:, 1]))

    value = intervals.bootstrap(scores[first], statistic, seed)
    return Leader(names[first], value, names[second], intervals.bootstrap(pair, lead, seed))


def fooled_by_others(fooled: np.ndarray) -> np.ndarray:
    """[judge, n]: how many of the other classifiers' examples of each image fool the judge, as a share: column j."""
    others = ~np.eye(len(fooled), dtype=bool)
    return (fooled * others[:, :, None]).sum(axis=0) / (len(fooled) - 1)


def fooling_others(fooled: np.ndarray) -> np.ndarray:
    """[source, n]: how many of the other classifiers the source's example of each image fools, as a share: row i."""
    return fooled_by_others(fooled.swapaxes(0, 1))


def leaders(
    names: Sequence[str], fooled: Mapping[float, np.ndarray], smallest: np.ndarray | None, seed: int = 0
) -> dict[str, dict[str, Leader]]:
    """{"easiest" or "furthest": {where: leader}}: the fullest column and the fullest row at each level.

    Easiest to fool is also who has the lowest median of its `smallest` budgets [network, n], where these are given.
    """
    found: dict[str, dict[str, Leader]] = {"easiest": {}, "furthest": {}}
    for level, matrix in fooled.items():
        found["easiest"][f"{level:g}"] = leader(names, fooled_by_others(matrix), seed=seed)
        found["furthest"][f"{level:g}"] = leader(names, fooling_others(matrix), seed=seed)
    if smallest is not None:
        found["easiest"][OWN_BUDGET] = leader(names, smallest, np.median, lowest=True, seed=seed)
    return found
