"""Scores: intervals against scipy, worst cases against hand-made rows, and what a failed cell leaves."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from s2snet.evaluation.schema import CLEAN, ROW_SCHEMA, TABLE_COLUMNS, WORST_CASE
from s2snet.evaluation.scores import headline, read_table, table, wilson, write_table

EPS = 8 / 255


def rows_of(*groups: dict) -> pa.Table:
    """Rows from groups that each say which of their images are right; the rest of a row does not matter."""
    columns = {field.name: [] for field in ROW_SCHEMA}
    for group in groups:
        for image, correct in zip(group.get("images", range(len(group["correct"]))), group["correct"], strict=True):
            row = {
                "crafted": "",
                "defence": "none",
                "source": "none",
                "threat": CLEAN,
                "route": "",
                "attack": "",
                "norm": "",
                "budget": 0.0,
                **group,
                "image": image,
                "correct": bool(correct),
            }
            for field in ROW_SCHEMA:
                empty = "" if pa.types.is_string(field.type) else 0
                columns[field.name].append(row.get(field.name, empty))
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in ROW_SCHEMA}, ROW_SCHEMA)


def attacked(correct: list[int], crafted: str, threat: str = "white_box", **naming) -> dict:
    """A group of rows under attack."""
    group = {"route": "exact", "attack": "pgd", "norm": "linf", "budget": EPS} | naming
    return {"correct": correct, "crafted": crafted, "threat": threat, **group}


def cell_of(group: dict, status: str = "done", reason: str | None = None) -> dict:
    """The cell in run.json that a group of rows belongs to."""
    cell = {name: group[name] for name in ("crafted", "threat", "route", "attack", "norm", "budget")}
    return {**cell, "judges": [group.get("defence", "none")], "status": status, "reason": reason}


def line_of(lines: list[dict], **wanted) -> dict:
    """The one line with these values."""
    found = [line for line in lines if all(line[name] == value for name, value in wanted.items())]
    assert len(found) == 1, (wanted, found)
    return found[0]


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


def test_missing_images_are_said_and_do_not_count_as_withstood():
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
    speaking = headline(table(rows_of(clean, gray, *white), [cell_of(group) for group in (gray, *white)]))
    assert set(speaking) == {
        ("none", CLEAN, "", 0.0),
        ("none", "gray_box", "linf", EPS),
        ("none", "white_box", "linf", EPS),
        ("none", WORST_CASE, "linf", EPS),
    }
    assert speaking["none", "gray_box", "linf", EPS]["attack"] == "pgd"
    assert speaking["none", "white_box", "linf", EPS]["attack"] == WORST_CASE
