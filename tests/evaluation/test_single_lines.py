"""Lines of the evaluation that other tests do not depend on: each test here fails if one of them is changed.

They were found by scripts/mutants.py.
"""

import json
import math

import pytest
import torch
from handmade import attacked, cell_of, line_of, rows_of
from jobs import defence, evaluated, pictures, white_box

from s2snet.attacks import ATTACKS
from s2snet.evaluation.cells import key_of
from s2snet.evaluation.referee import verdict
from s2snet.evaluation.schema import SCHEMA_VERSION
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
        (lambda x: x.double(), "expected images torch.float32 (2, 1, 3, 3), got torch.float64 (2, 1, 3, 3)"),
        (lambda x: x[:, :, :2], "expected images torch.float32 (2, 1, 3, 3), got torch.float32 (2, 1, 2, 3)"),
    ],
)
def test_the_referee_refuses_what_is_no_image(spoil, reason):
    images = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert verdict(images, images.clone(), "linf", 0.0).ok
    assert verdict(images, spoil(images), "linf", math.inf) == (False, reason)


FACTS = {
    *("source", "route", "fit", "attack", "options", "version", "norm", "budget", "seed"),
    *("leave_early", "fast", "precision", "data", "chunk", "schema"),
}


def preimage_of(output: str, **changed) -> dict:
    """Return the preimage of the key of a small evaluation's only attacked cell; its folder has that key as name."""
    given = {"count": 4, "defences": [defence("none")], "threats": white_box(), "attacks": {"pgd": {"steps": 1}}}
    folder, _ = evaluated(output, **(given | {"samples": 0} | changed))
    (path,) = folder.glob("ledger/crafted/*/cell.json")
    preimage = json.loads(path.read_text())
    assert key_of(preimage) == path.parent.name
    return preimage


def test_a_key_depends_on_every_fact_and_not_on_their_order(monkeypatch):
    preimage = preimage_of("r")
    assert set(preimage) == FACTS
    facts = [*FACTS, "training_images", "file", "eight_bits"]
    assert len({key_of(preimage), *(key_of({**preimage, fact: "another"}) for fact in facts)}) == 1 + len(facts)
    assert key_of(dict(reversed(preimage.items()))) == key_of(preimage)
    assert preimage["schema"] == SCHEMA_VERSION

    images = pictures()
    images.images[0, 0, 0, 0] += 1 / 512
    other = preimage_of("images", images=images)
    assert other["data"] != preimage["data"] and other == {**preimage, "data": other["data"]}
    monkeypatch.setattr(ATTACKS["pgd"], "version", 99)
    assert preimage_of("version") == {**preimage, "version": 99}
