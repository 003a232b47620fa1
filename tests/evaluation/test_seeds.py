"""Several seeds: what is drawn is drawn for each, the rest once; the table has mean and spread."""

import json

import numpy as np
import pytest
from jobs import Noisy, crafted, defence, evaluated, files, line, lines, rows, white_box

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import wilson

WORDS = {"attacks": {"pgd": {"steps": 1, "step_size": 0.005}, "bim": {"steps": 2}}, "budgets": {"linf": [0.02]}}


def seeded(output, *seeds, **changed):
    return evaluated(output, seeds=list(seeds), **(WORDS | {"threats": white_box()} | changed))[0]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Seeds 0, 1 and 2. Not to be written to."""
    return seeded(tmp_path_factory.mktemp("seeds") / "r", 0, 1, 2)


def accuracies(folder, **naming) -> list[float]:
    """Of each seed, from the rows, the clean ones included."""
    found = []
    for seed in (0, 1, 2):
        wrong = {row["image"] for row in rows(folder, **naming) if row["seed"] in (seed, -1) and not row["correct"]}
        found.append(1 - len(wrong) / 20)
    return found


def test_what_draws_nothing_is_crafted_once(three):
    seeds = {attack: {row["seed"] for row in rows(three, attack=attack)} for attack in ("pgd", "bim", "none")}
    assert seeds == {"pgd": {0, 1, 2}, "bim": {-1}, "none": {-1}}
    assert len(crafted(three)) == len(set(crafted(three))) == 2 * (3 + 1) * 3  # defences x cells x chunks
    assert json.loads((three / "run.json").read_text())["seed"] == [0, 1, 2]


def test_the_table_has_the_mean_over_seeds_and_their_spread(three):
    for name in ("none", "blur"):
        pgd = rows(three, defence=name, attack="pgd")
        by_seed = [np.mean([row["correct"] for row in pgd if row["seed"] == seed]) for seed in (0, 1, 2)]
        found = line(three, defence=name, attack="pgd")
        assert found["accuracy"] == pytest.approx(np.mean(by_seed), abs=1e-6)
        assert found["spread"] == pytest.approx(max(by_seed) - min(by_seed), abs=1e-6)
        assert (found["seeds"], found["images"]) == (3, 20)
        assert (found["low"], found["high"]) == pytest.approx(wilson(np.mean(by_seed) * 20, 20), abs=1e-6)
        still = line(three, defence=name, attack="bim")
        assert (still["seeds"], still["spread"]) == (1, None)
    spreads = [found["spread"] for found in lines(three, attack="pgd")]
    assert max(spreads) > 0  # the seeds do differ


def test_the_worst_case_is_taken_for_each_seed_by_itself(three):
    for name in ("none", "blur"):
        found = line(three, defence=name, threat=WORST_CASE)
        by_seed = accuracies(three, defence=name)
        assert found["accuracy"] == pytest.approx(np.mean(by_seed), abs=1e-6)
        assert found["spread"] == pytest.approx(max(by_seed) - min(by_seed), abs=1e-6)
        assert (found["seeds"], found["status"]) == (3, "done")


def test_one_seed_of_several_is_that_seed_alone(three):
    alone = seeded("alone", 1)
    drop = ("seed", "crafted")
    expected = [row for row in rows(three) if row["seed"] in (1, -1)]
    assert [{k: row[k] for k in row if k not in drop} for row in rows(alone)] == [
        {k: row[k] for k in row if k not in drop} for row in expected
    ]
    assert all(found["seeds"] == 1 and found["spread"] is None for found in lines(alone))


def test_another_seed_uses_what_is_there(three):
    seeded("r", 0)
    before = crafted(seeded("r", 0))
    folder = seeded("r", 0, 1, 2)
    assert crafted(folder)[: len(before)] == before
    assert len(set(crafted(folder))) == len(crafted(folder)) == len(crafted(three))
    assert files(folder) == files(three)


def test_a_judge_that_draws_is_asked_with_every_seed():
    folder = seeded("r", 0, 1, 2, defences=[defence("noisy", Noisy())], attacks={"bim": {"steps": 2}})
    for attack in ("none", "bim"):
        assert {row["seed"] for row in rows(folder, attack=attack)} == {0, 1, 2}
    clean = line(folder, threat=CLEAN)
    margins = [[row["margin"] for row in rows(folder, threat=CLEAN, seed=seed)] for seed in (0, 1)]
    assert margins[0] != margins[1]
    assert (clean["seeds"], clean["images"]) == (3, 20)
    assert line(folder, threat=WORST_CASE)["status"] == "done"
