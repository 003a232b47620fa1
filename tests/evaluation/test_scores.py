"""Scores: intervals against scipy, worst cases against hand-made rows, and what a failed cell leaves."""

import math

import numpy as np
import pytest
from handmade import EPS, attacked, cell_of, line_of, rows_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from s2snet.evaluation.schema import CLEAN, TABLE_COLUMNS, WORST_CASE
from s2snet.evaluation.scores import headline, read_table, table, wilson, write_table


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_is_scipys(n, share, confidence):
    successes = round(share * n)
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(1, 10**7))
def test_wilson_is_exact_at_its_ends(n):
    assert wilson(0, n)[0] == 0.0
    assert wilson(n, n)[1] == 1.0
    assert 0.0 < wilson(0, n)[1] < 1.0
    assert 0.0 < wilson(n, n)[0] < 1.0


@given(st.integers(1, 1000), st.data())
def test_wilson_holds_the_share_and_mirrors(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize("arguments", [(0, 0), (-1, 3), (4, 3), (1, 3, 0.0), (1, 3, 1.0), (1, 3, math.nan)])
def test_wilson_refuses_what_is_no_share(arguments):
    with pytest.raises(ValueError):
        wilson(*arguments)


def test_worst_case_is_per_image_and_includes_the_clean_prediction():
    clean = {"correct": [1, 1, 1, 0]}
    first = attacked([0, 1, 1, 1], "a", attack="fgsm")
    second = attacked([1, 0, 1, 1], "b", attack="pgd")
    lines = table(rows_of(clean, first, second), [cell_of(first), cell_of(second)])
    assert [tuple(line) for line in lines] == [TABLE_COLUMNS] * 5
    assert line_of(lines, attack="fgsm")["accuracy"] == 0.75
    assert line_of(lines, attack="pgd")["accuracy"] == 0.75
    # Neither attack turns three of four; together with the image that was wrong from the start they do.
    for worst in (line_of(lines, threat="white_box", attack=WORST_CASE), line_of(lines, threat=WORST_CASE)):
        assert (worst["accuracy"], worst["images"], worst["status"]) == (0.25, 4, "done")
        assert (worst["low"], worst["high"]) == wilson(1, 4)
        assert worst["route"] == WORST_CASE


def test_one_cell_has_no_worst_case_of_its_threat_but_one_over_everything():
    clean, only = {"correct": [0, 1]}, attacked([1, 1], "a")
    lines = table(rows_of(clean, only), [cell_of(only)])
    assert line_of(lines, threat="white_box")["accuracy"] == 1.0
    assert line_of(lines, threat=WORST_CASE)["accuracy"] == 0.5
    assert len(lines) == 3


def test_a_route_of_several_attacks_has_a_worst_case_of_its_own():
    clean = {"correct": [1, 1, 1]}
    groups = [
        attacked([0, 1, 1], "a", attack="fgsm"),
        attacked([1, 0, 1], "b", attack="pgd"),
        attacked([1, 1, 0], "c", attack="fgsm", route="identity"),
    ]
    lines = table(rows_of(clean, *groups), [cell_of(group) for group in groups])
    assert line_of(lines, route="exact", attack=WORST_CASE)["accuracy"] == pytest.approx(1 / 3)
    assert not [line for line in lines if line["route"] == "identity" and line["attack"] == WORST_CASE]  # one attack
    assert line_of(lines, threat="white_box", route=WORST_CASE)["accuracy"] == 0.0
    assert line_of(lines, threat=WORST_CASE)["accuracy"] == 0.0


def test_success_is_over_the_images_that_are_right_without_an_attack():
    clean, group = {"correct": [1, 1, 1, 0, 0]}, attacked([0, 1, 0, 0, 1], "a")
    (line,) = (line for line in table(rows_of(clean, group), [cell_of(group)]) if line["threat"] == "white_box")
    assert (line["accuracy"], line["images"]) == (0.4, 5)
    assert (line["success"], line["clean_correct"]) == (pytest.approx(2 / 3), 3)
    nothing = {"correct": [0, 0, 0, 0, 0]}
    line = line_of(table(rows_of(nothing, group), [cell_of(group)]), threat="white_box")
    assert (line["success"], line["clean_correct"]) == (None, 0)


def test_each_seed_by_itself_then_the_mean():
    """Turned by seed 0: images 0 and 1; by seed 1: image 2. Nobody who attacks once turns all three."""
    clean = {"correct": [1, 1, 1, 1], "seed": -1}
    groups = [
        attacked([0, 1, 1, 1], "a", seed=0),
        attacked([1, 0, 1, 1], "b", seed=0, route="identity"),
        attacked([1, 1, 0, 1], "c", seed=1),
        attacked([1, 1, 1, 1], "d", seed=1, route="identity"),
    ]
    lines = table(rows_of(clean, *groups), [{**cell_of(group), "seed": group["seed"]} for group in groups])
    exact = line_of(lines, route="exact")
    assert (exact["accuracy"], exact["spread"], exact["seeds"], exact["images"]) == (0.75, 0.0, 2, 4)
    for worst in (line_of(lines, threat="white_box", route=WORST_CASE), line_of(lines, threat=WORST_CASE)):
        assert (worst["accuracy"], worst["spread"], worst["seeds"]) == (pytest.approx(5 / 8), 0.25, 2)
        assert worst["success"] == pytest.approx(3 / 8)
        assert (worst["low"], worst["high"]) == wilson(2.5, 4)
    assert line_of(lines, threat=CLEAN)["seeds"] == 1


def test_a_seed_that_failed_leaves_no_mean():
    clean, done, failed = {"correct": [1, 1], "seed": -1}, attacked([0, 1], "a", seed=0), attacked([], "b", seed=1)
    cells = [{**cell_of(done), "seed": 0}, {**cell_of(failed, "failed", "broken"), "seed": 1}]
    lines = table(rows_of(clean, done), cells)
    line = line_of(lines, threat="white_box")
    assert (line["accuracy"], line["status"]) == (None, "failed: broken")
    assert line_of(lines, threat=WORST_CASE)["status"].startswith("incomplete: ")


def minimal(correct: list[int], l2: list[float], crafted: str = "m", **naming) -> dict:
    return attacked(correct, crafted, attack="ddn", norm="l2", budget=math.inf, l2=l2, **naming)


def test_a_minimal_attack_counts_at_each_budget_what_it_found_within():
    """Image 0 falls at 0.2, 1 at 0.5 exactly, 2 at 0.9; 3 withstands; 4 is wrong as it is."""
    clean = {"correct": [1, 1, 1, 1, 0]}
    group = minimal([0, 0, 0, 1, 0], [0.2, 0.5, 0.9, 0.0, 0.0])
    lines = table(rows_of(clean, group), [{**cell_of(group), "budget": None}], {"l2": [0.5, 1.0], "linf": [0.1]})
    at = {line["budget"]: line for line in lines if line["threat"] == "white_box"}
    assert {budget: line["accuracy"] for budget, line in at.items()} == {0.5: 0.4, 1.0: 0.2, math.inf: 0.2}
    assert {budget: line["distance"] for budget, line in at.items()} == {0.5: None, 1.0: None, math.inf: 0.9}
    assert at[0.5]["success"] == 0.5
    worst = {line["budget"]: line["accuracy"] for line in lines if line["threat"] == WORST_CASE}
    assert worst == {0.5: 0.4, 1.0: 0.2}


def test_the_median_distance_counts_failures_as_infinitely_far():
    clean = {"correct": [1, 1, 1]}
    for correct, expected in (([0, 1, 1], math.inf), ([0, 0, 1], 0.7), ([0, 0, 0], 0.7)):
        group = minimal(correct, [0.3, 0.7, 0.9])
        lines = table(rows_of(clean, group), [{**cell_of(group), "budget": None}], {"l2": []})
        assert line_of(lines, threat="white_box")["distance"] == expected


def test_a_failed_minimal_attack_makes_every_budget_incomplete():
    clean, failed = {"correct": [1, 1]}, {**minimal([], []), "budget": None}
    lines = table(rows_of(clean), [cell_of(failed, "failed", "broken")], {"l2": [0.5, 1.0]})
    assert [line["budget"] for line in lines if line["threat"] == "white_box"] == [0.5, 1.0, math.inf]
    assert {line["status"] for line in lines if line["threat"] == "white_box"} == {"failed: broken"}
    worst = [line for line in lines if line["threat"] == WORST_CASE]
    assert [line["budget"] for line in worst] == [0.5, 1.0]
    assert all(line["status"].startswith("incomplete: ") and line["accuracy"] == 1.0 for line in worst)


def test_reached_is_over_all_images_and_only_for_targeted_attacks():
    clean = {"correct": [1, 1, 1, 1]}
    aimed = attacked([0, 0, 0, 1], "a", target=3, prediction=[3, 3, 2, 0])
    free = attacked([0, 0, 0, 1], "b", route="identity", target=-1, prediction=[3, 3, 2, 0])
    lines = table(rows_of(clean, aimed, free), [cell_of(aimed), cell_of(free)])
    assert line_of(lines, route="exact")["reached"] == 0.5
    assert line_of(lines, route="identity")["reached"] is None


def test_defences_norms_and_budgets_do_not_mix():
    groups = [{"correct": [1, 1], "defence": name} for name in ("none", "s2snet")]
    for i, (name, norm, budget) in enumerate([("none", "linf", EPS), ("s2snet", "linf", EPS), ("s2snet", "l2", 0.5)]):
        groups.append(attacked([0, i > 0], f"cell{i}", defence=name, norm=norm, budget=budget))
    lines = table(rows_of(*groups), [cell_of(group) for group in groups[2:]])
    assert line_of(lines, threat=WORST_CASE, defence="none")["accuracy"] == 0.0
    assert line_of(lines, threat=WORST_CASE, defence="s2snet", norm="linf")["accuracy"] == 0.5
    assert line_of(lines, threat=WORST_CASE, defence="s2snet", norm="l2")["accuracy"] == 0.5


def test_cells_that_differ_in_source_share_a_line_of_their_minimum():
    clean = {"correct": [1, 1, 1]}
    first, second = (
        attacked(right, source, threat="transfer", source=source)
        for source, right in (("a", [0, 1, 1]), ("b", [1, 0, 1]))
    )
    lines = table(rows_of(clean, first, second), [cell_of(first), cell_of(second)])
    assert line_of(lines, threat="transfer", attack="pgd")["accuracy"] == pytest.approx(1 / 3)


def test_a_failed_cell_is_empty_and_makes_worst_cases_incomplete():
    clean, done, failed = {"correct": [1, 1]}, attacked([0, 1], "a"), attacked([], "b", route="identity")
    lines = table(rows_of(clean, done), [cell_of(done), cell_of(failed, "failed", "out of\n memory")])
    line = line_of(lines, route="identity")
    assert (line["accuracy"], line["low"], line["high"]) == (None, None, None)
    assert line["status"] == "failed: out of memory"
    for worst in (line_of(lines, threat="white_box", attack=WORST_CASE), line_of(lines, threat=WORST_CASE)):
        assert worst["status"] == "incomplete: white_box identity pgd failed (out of memory)"
        assert worst["accuracy"] == 0.5


def test_what_a_failed_cell_turned_stays_turned():
    clean, failed = {"correct": [1, 1]}, attacked([0], "a")
    lines = table(rows_of(clean, failed), [cell_of(failed, "failed", "killed")])
    assert line_of(lines, threat="white_box")["accuracy"] is None
    assert line_of(lines, threat=WORST_CASE)["accuracy"] == 0.5


def test_a_done_cell_without_rows_has_failed():
    clean, missing = {"correct": [1]}, attacked([], "a")
    lines = table(rows_of(clean), [cell_of(missing)])
    assert line_of(lines, threat="white_box")["status"] == "failed: no rows"
    assert line_of(lines, threat=WORST_CASE)["status"].startswith("incomplete: ")


def test_missing_images_are_reported_and_do_not_count_as_withstood():
    clean, few = {"correct": [1, 1, 1, 1]}, attacked([0, 1], "a")
    lines = table(rows_of(clean, few), [cell_of(few)])
    line = line_of(lines, threat="white_box")
    assert (line["accuracy"], line["images"]) == (0.5, 2)
    assert line["status"] == "incomplete: white_box exact pgd lacks 2 of 4 images"
    assert line_of(lines, threat=WORST_CASE)["status"].startswith("incomplete")


def test_a_defence_without_clean_rows_is_incomplete():
    only = attacked([1, 0], "a")
    lines = table(rows_of(only), [cell_of(only)])
    assert line_of(lines, threat=CLEAN)["status"] == "failed: no rows"
    assert line_of(lines, threat=WORST_CASE)["status"] == "incomplete: clean failed (no rows)"


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=2, max_size=5), st.randoms())
def test_worst_case_is_the_conjunction_whatever_the_order_of_rows(outcomes, random):
    groups = [{"correct": outcomes[0]}]
    groups += [attacked(right, str(i), route=f"route{i % 2}") for i, right in enumerate(outcomes[1:])]
    rows, cells = rows_of(*groups), [cell_of(group) for group in groups[1:]]
    lines = table(rows, cells)
    assert line_of(lines, threat=WORST_CASE)["accuracy"] == np.all(outcomes, axis=0).mean()
    places = list(range(len(rows)))
    random.shuffle(places)
    assert table(rows.take(places), cells[::-1]) == lines


def test_the_table_survives_its_file_and_is_written_the_same_each_time(tmp_path):
    clean, done, failed = (
        {"correct": [1, 1, 0]},
        attacked([0, 1, 0], "a"),
        attacked([], "b", route="identity"),
    )
    lines = table(rows_of(clean, done), [cell_of(done), cell_of(failed, "failed", 'a "reason", with a comma')])
    write_table(lines, tmp_path / "table.csv")
    write_table(lines, tmp_path / "again.csv")
    assert (tmp_path / "table.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    text = (tmp_path / "table.csv").read_text()
    assert text.splitlines()[0] == ",".join(TABLE_COLUMNS)
    assert f"none,white_box,exact,pgd,linf,{EPS!r},0.333333," in text
    back = read_table(tmp_path / "table.csv")
    assert [line["budget"] for line in back] == [line["budget"] for line in lines]
    for line, original in zip(back, lines, strict=True):
        for name in ("accuracy", "low", "high"):
            assert line[name] == pytest.approx(original[name], abs=5e-7) or line[name] is original[name] is None
        assert line["status"] == original["status"]


def test_headline_takes_the_line_that_speaks_for_a_threat():
    clean = {"correct": [1, 1]}
    gray = attacked([1, 1], "g", threat="gray_box")
    white = [attacked([0, 1], "a"), attacked([1, 1], "b", route="identity")]
    lines = headline(table(rows_of(clean, gray, *white), [cell_of(group) for group in (gray, *white)]))
    assert set(lines) == {
        ("none", CLEAN, "", 0.0),
        ("none", "gray_box", "linf", EPS),
        ("none", "white_box", "linf", EPS),
        ("none", WORST_CASE, "linf", EPS),
    }
    assert lines["none", "gray_box", "linf", EPS]["attack"] == "pgd"
    assert lines["none", "white_box", "linf", EPS]["attack"] == WORST_CASE
