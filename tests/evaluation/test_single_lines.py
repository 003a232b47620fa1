"""Lines of the evaluation that other tests do not depend on: each test here fails if one of them is changed.

They were found by scripts/mutants.py.
"""

import math

import pytest
import torch
from handmade import attacked, cell_of, line_of, rows_of

from s2snet.evaluation.referee import verdict
from s2snet.evaluation.scores import table, wilson


def test_an_interval_is_that_of_95_percent():
    assert wilson(50, 100) == pytest.approx((0.403832, 0.596168), abs=1e-6)
    assert wilson(50, 100) == wilson(50, 100, 0.95)


def test_the_number_of_images_is_the_least_of_the_seeds():
    """An interval over more images than one of the seeds has would be too narrow."""
    clean = {"correct": [1, 1, 1, 1], "seed": -1}
    groups = [attacked([0, 1, 1, 1], "a", seed=0), attacked([1, 1], "b", seed=1)]
    lines = table(rows_of(clean, *groups), [{**cell_of(group), "seed": group["seed"]} for group in groups])
    line = line_of(lines, threat="white_box")
    assert (line["images"], line["seeds"]) == (2, 2)
    assert (line["low"], line["high"]) == wilson(0.875 * 2, 2)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda x: x.index_fill(3, torch.tensor([1]), torch.nan), "2 of 2 images are NaN or infinite"),
        (lambda x: x.index_fill(3, torch.tensor([1]), torch.inf), "2 of 2 images are NaN or infinite"),
        (lambda x: x.index_fill(3, torch.tensor([1]), -1e-7), "2 of 2 images are outside [0, 1]"),
        (lambda x: x.index_fill(3, torch.tensor([1]), 1 + 1e-6), "2 of 2 images are outside [0, 1]"),
        (lambda x: x.double(), "torch.float64 (2, 1, 3, 3) came back for torch.float32 (2, 1, 3, 3)"),
        (lambda x: x[:, :, :2], "torch.float32 (2, 1, 2, 3) came back for torch.float32 (2, 1, 3, 3)"),
    ],
)
def test_the_referee_refuses_what_is_no_image(spoil, reason):
    images = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert verdict(images, images.clone(), "linf", 0.0).ok
    assert verdict(images, spoil(images), "linf", math.inf) == (False, reason)
