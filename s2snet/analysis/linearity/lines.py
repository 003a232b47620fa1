"""Scores along a fixed direction, and how well a few straight pieces describe them (arXiv 1412.6572, figure 4).

The direction is the sign of the gradient at the image, taken once; the image is moved along it in both senses, far out
of the range of pixels, without clipping.
"""

import numpy as np
import torch
from torch import Tensor

from s2snet.analysis.batched import logits
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.steps import direction


def along(net: Net, images: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
    """Scores [n, G, K] at image + offset x sign(gradient of the cost at the image), for G offsets.

    One backward and 1 + G forwards an image.
    """
    way = direction(net.cost, images, labels)
    return torch.stack([logits(net, images + offset * way) for offset in offsets.tolist()], dim=1)


def unexplained(curves: np.ndarray, pieces: int) -> np.ndarray:
    """The share of each curve's variance [m] that is left by its best fit of 1, 2, ... `pieces` lines: [m, pieces].

    `curves` [m, G] at equal distances. The ends of the pieces are chosen for the least squared error, exactly, by
    dynamic programming; pieces need not meet. 0 is piecewise linear. A parabola keeps 1 / k^4 at k pieces, and a
    constant curve 0. Needs m G^2 numbers of memory.
    """
    curves = np.asarray(curves, dtype=np.float64)
    curves = curves - curves.mean(axis=1, keepdims=True)
    total = np.square(curves).sum(axis=1)
    curves = curves / np.sqrt(np.where(total > 0, total, 1))[:, None]
    costs = _segment_costs(curves)
    best = costs[:, 0, :]  # of the points up to each, with one piece
    left = [best[:, -1]]
    for _ in range(1, pieces):
        # one more piece, beginning after any earlier point
        through = best[:, :-1, None] + costs[:, 1:, :]
        best = np.minimum(best, through.min(axis=1))
        left.append(best[:, -1])
    return np.stack(left, axis=1)


def _segment_costs(curves: np.ndarray) -> np.ndarray:
    """[m, i, j]: the squared error of the best line through the points i to j; infinite for j < i."""
    count = curves.shape[1]
    place = np.linspace(-1, 1, count)
    first, last = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    points = np.where(last >= first, last - first + 1, 1)

    def between(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros_like(values[..., :1]), np.cumsum(values, axis=-1)], axis=-1)
        return sums[..., last + 1] - sums[..., first]

    mean_x, mean_y = between(place) / points, between(curves) / points
    spread = between(place**2) - points * mean_x**2
    product = between(place * curves) - points * mean_x * mean_y
    slope_part = np.where(points > 1, product**2 / np.where(spread > 0, spread, 1), 0)
    error = between(curves**2) - points * mean_y**2 - slope_part
    return np.where(last >= first, np.where(points > 2, error.clip(min=0), 0), np.inf)


def stretches(right: np.ndarray, predictions: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Per image [n]: how the prediction goes along the line. `right` and `predictions` [n, G] at G offsets, one of 0.

    right_around_0: width of the unbroken stretch with the right class around 0, in offsets; 0 where wrong there.
    longest_wrong: width of the longest unbroken stretch with one and the same wrong class.
    right_up, right_down: shares of the points with offset >= 1, and <= -1, that are right.
    """
    zero, step = int(np.abs(offsets).argmin()), offsets[1] - offsets[0]
    around, longest = [], []
    for line, said in zip(right, predictions, strict=True):
        ends = np.flatnonzero(np.diff(said)) + 1
        runs = np.split(np.arange(len(said)), ends)
        widths = [(run[-1] - run[0]) * step for run in runs]
        around.append(next(w for run, w in zip(runs, widths, strict=True) if zero in run) if line[zero] else 0.0)
        longest.append(max((w for run, w in zip(runs, widths, strict=True) if not line[run[0]]), default=0.0))
    return {
        "right_around_0": np.array(around),
        "longest_wrong": np.array(longest),
        "right_up": right[:, offsets >= 1].mean(axis=1),
        "right_down": right[:, offsets <= -1].mean(axis=1),
    }
