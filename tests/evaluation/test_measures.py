"""Measures and curves: from hand-made rows with known answers, and from a whole evaluation by their formulas."""

import csv
import math

import numpy as np
import pytest
import torch
from handmade import EPS, attacked, cell_of, rows_of
from hypothesis import given
from hypothesis import strategies as st
from jobs import Blur, defence, evaluated, gray_box, line, pictures, rows, white_box
from safetensors.torch import load_file

from s2snet.evaluation.measures import curves, measures, write
from s2snet.evaluation.schema import CLEAN, CURVE_COLUMNS, MEASURE_COLUMNS, MEASURES, WORST_CASE
from s2snet.evaluation.scores import Scores

CLASSES = ["cat", "dog", "owl"]


def measured(*groups: dict, budgets=None) -> list[dict]:
    table = rows_of(*groups)
    cells = [{**cell_of(group), "seed": group.get("seed")} for group in groups if group.get("crafted")]
    return measures(Scores(table, cells, budgets), table, CLASSES)


def value_of(lines: list[dict], measure: str, **wanted):
    wanted = {"class": "", "measure": measure, **wanted}
    (found,) = [each for each in lines if all(each[name] == value for name, value in wanted.items())]
    return found["value"], found["images"]


def test_distances_are_means_over_all_images_and_over_the_turned():
    """Only images that are correct without an attack count as fooled: image 3 is wrong without one."""
    clean = {"correct": [1, 1, 1, 0]}
    group = attacked(
        [0, 1, 0, 0], "a",
        linf=[0.1, 0.2, 0.3, 0.0], l2_normalised=[0.2, 0.4, 0.6, 0.8], l2_standardised=[1.0, 2.0, 3.0, 6.0],
    )  # fmt: skip
    found = measured(clean, group)
    assert {each["measure"] for each in found} <= set(MEASURES)
    assert [tuple(each) for each in found] == [MEASURE_COLUMNS] * len(found)
    named = {"threat": "white_box", "route": "exact", "attack": "pgd", "norm": "linf", "budget": EPS}
    assert value_of(found, "linf", **named) == (pytest.approx(0.15), 4)
    assert value_of(found, "l2_normalised") == (pytest.approx(0.5), 4)
    assert value_of(found, "l2_normalised_turned") == (pytest.approx(0.4), 2)
    assert value_of(found, "l2_standardised") == (pytest.approx(3.0), 4)


def test_purification_is_a_median_and_absent_without_a_purifier():
    clean = {"correct": [1, 1, 1], "purified_pixel": [1.0, 2.0, 9.0]}
    group = attacked([1, 1, 1], "a", purified_pixel=[3.0, 5.0, 40.0], purified_signal=[1.0, 7.0, 8.0])
    bare = [{"correct": [1, 1, 1], "defence": "bare"}, attacked([1, 1, 1], "b", defence="bare")]
    found = measured(clean, group, *bare)
    assert value_of(found, "purified_pixel", threat=CLEAN) == (2.0, 3)
    assert value_of(found, "purified_pixel", threat="white_box") == (5.0, 3)
    assert value_of(found, "purified_signal", threat="white_box") == (7.0, 3)
    assert not [each for each in found if each["defence"] == "bare" and each["measure"].startswith("purified")]


def test_clean_cost_is_against_the_undefended_classifier():
    found = measured({"correct": [1, 1, 1, 0]}, {"correct": [1, 0, 0, 0], "defence": "s2snet"},
                     {"correct": [1, 1, 1, 1], "defence": "better"})  # fmt: skip
    assert value_of(found, "clean_cost", defence="s2snet") == (0.5, 4)
    assert value_of(found, "clean_cost", defence="better") == (-0.25, 4)
    assert not [each for each in found if each["measure"] == "clean_cost" and each["defence"] == "none"]
    assert not [each for each in measured({"correct": [1], "defence": "s"}) if each["measure"] == "clean_cost"]


def test_accuracy_per_class_without_an_attack_and_in_the_worst_case():
    label = [0, 0, 0, 2, 2]
    clean = {"correct": [1, 1, 0, 1, 1], "label": label}
    groups = [
        attacked([0, 1, 1, 1, 1], "a", label=label),
        attacked([1, 1, 1, 1, 0], "b", route="identity", label=label),
    ]
    found = measured(clean, *groups)
    by_class = {each["class"]: each for each in found if each["measure"] == "accuracy" and each["threat"] == CLEAN}
    assert {name: (each["value"], each["images"]) for name, each in by_class.items()} == {
        "cat": (pytest.approx(2 / 3), 3), "owl": (1.0, 2)
    }  # fmt: skip
    for threat in ("white_box", WORST_CASE):
        assert value_of(found, "accuracy", threat=threat, **{"class": "cat"}) == (pytest.approx(1 / 3), 3)
        assert value_of(found, "accuracy", threat=threat, **{"class": "owl"}) == (0.5, 2)


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=3, max_size=6), st.integers(1, 3))
def test_accuracies_per_class_make_up_the_tables_accuracy(outcomes, seeds):
    """Whatever the cells and the seeds."""
    label = [0, 1, 1, 2, 2, 2]
    groups = [{"correct": outcomes[0], "label": label, "seed": -1}]
    for place, right in enumerate(outcomes[1:]):
        groups.append(attacked(right, str(place), label=label, route=f"route{place // seeds}", seed=place % seeds))
    table = rows_of(*groups)
    scores = Scores(table, [{**cell_of(group), "seed": group["seed"]} for group in groups[1:]])
    found = measures(scores, table, CLASSES)
    for each in scores.table():
        if each["threat"] == WORST_CASE and each["status"] == "done":
            parts = [m for m in found if m["measure"] == "accuracy" and m["threat"] == WORST_CASE]
            assert sum(m["value"] * m["images"] for m in parts) / 6 == pytest.approx(each["accuracy"])


def test_foreign_images_that_count_are_counted():
    clean = {"correct": [1, 1, 1]}
    groups = [attacked([1, 1, 1], "a", threat="foreign", route="", attack="file", l2=[0.1, 0.0, 0.2])]
    groups.append({**groups[0], "defence": "s2snet"})
    found = measured(clean, {**clean, "defence": "s2snet"}, *groups)
    assert value_of(found, "changed", defence="none") == value_of(found, "changed", defence="s2snet") == (2.0, 3)


def curve(*groups: dict, threat: str = WORST_CASE, distance: str = "linf") -> list[tuple[float, float]]:
    table = rows_of(*groups)
    cells = [cell_of(group) for group in groups if group.get("crafted")]
    found = curves(Scores(table, cells), table)
    assert all(tuple(point) == CURVE_COLUMNS for point in found)
    return [(p["at"], p["accuracy"]) for p in found if (p["threat"], p["distance"]) == (threat, distance)]


def test_a_curve_falls_where_images_were_found():
    """Image 0 falls at 0.1 and at 0.3, 1 at 0.2, 2 never, 3 is wrong as it is."""
    clean = {"correct": [1, 1, 1, 0]}
    small = attacked([0, 1, 1, 1], "a", linf=[0.1, 0.1, 0.1, 0.1])
    large = attacked([0, 0, 1, 1], "b", threat="gray_box", budget=0.3, linf=[0.3, 0.2, 0.3, 0.3])
    assert curve(clean, small, large) == [(0.0, 0.75), (0.1, 0.5), (0.2, 0.25)]
    assert curve(clean, small, large, threat="white_box") == [(0.0, 0.75), (0.1, 0.5)]
    assert curve(clean, small, large, threat="gray_box") == [(0.0, 0.75), (0.2, 0.5), (0.3, 0.25)]


def test_a_curve_of_a_defence_that_withstands_is_one_point():
    assert curve({"correct": [1, 1]}, attacked([1, 1], "a", linf=[0.1, 0.1])) == [(0.0, 1.0)]


distances = st.lists(st.floats(0.001, 1), min_size=8, max_size=8)
outcomes = st.lists(st.booleans(), min_size=8, max_size=8)


@given(outcomes, st.lists(st.tuples(outcomes, distances), min_size=1, max_size=4))
def test_curves_never_rise_and_begin_and_end_at_the_tables_accuracies(clean, cells):
    groups = [attacked(right, str(k), route=f"r{k}", linf=list(at)) for k, (right, at) in enumerate(cells)]
    points = curve({"correct": clean}, *groups)
    places, accuracies = zip(*points, strict=True)
    assert list(places) == sorted(set(places))
    assert list(accuracies) == sorted(accuracies, reverse=True)
    assert points[0] == (0.0, np.mean(clean))
    assert accuracies[-1] == pytest.approx(np.mean(np.all([clean, *(right for right, _ in cells)], axis=0)))


def test_figures_are_written_with_six_digits_and_budgets_as_python_writes_them(tmp_path):
    found = measured({"correct": [1, 1, 1]}, attacked([1, 0, 1], "a", linf=[0.1, 0.2, 0.25]))
    write(found, MEASURE_COLUMNS, tmp_path / "m.csv")
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines[0] == ",".join(MEASURE_COLUMNS)
    assert f"none,white_box,exact,pgd,linf,{EPS!r},linf,,0.183333,3" in lines


def read(path) -> list[dict]:
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """PGD and DDN before two defences. Not to be written to."""
    words = {"attacks": {"pgd": {"steps": 3}, "ddn": {"steps": 5}}, "budgets": {"linf": [0.05], "l2": [0.5]}}
    return evaluated(tmp_path_factory.mktemp("measures") / "r", threats=gray_box() | white_box(), **words)[0]


def test_what_an_evaluation_measures_is_what_the_formulas_say(done):
    """PSNR of the purified image against the image, distances from the kept adversarial images, by hand."""
    found = read(done / "measures.csv")
    images = pictures().images
    blurred = Blur()(images)
    psnr = -10 * (blurred - images).double().pow(2).flatten(1).mean(dim=1).log10()
    assert float(value_of(found, "psnr")[0]) == pytest.approx(psnr.mean().item(), rel=1e-4)
    assert 0 < float(value_of(found, "ssim")[0]) < 1
    distance = (blurred - images).flatten(1).norm(dim=1).sort().values
    pixel = float(value_of(found, "purified_pixel", threat=CLEAN)[0])
    assert pixel == pytest.approx((distance[9] + distance[10]).item() / 2, rel=1e-4)
    cost = line(done, defence="none", threat=CLEAN)["accuracy"] - line(done, defence="blur", threat=CLEAN)["accuracy"]
    assert float(value_of(found, "clean_cost")[0]) == pytest.approx(cost, abs=1e-6)

    module, mean, std = defence("blur", Blur()).module, *pictures().mean, *pictures().std
    for row in rows(done, defence="blur", attack="pgd", threat="white_box"):
        x = images[row["image"] - 100].double()
        path = done / f"ledger/crafted/{row['crafted']}/0000{(row['image'] - 100) // 8}.safetensors"
        kept = load_file(path)
        moved = kept["adversarial"][kept["image"].tolist().index(row["image"])].double()
        delta = moved - x
        assert row["linf"] == delta.abs().max().item()
        assert row["l2"] == pytest.approx(delta.norm().item())
        assert row["l1"] == pytest.approx(delta.abs().sum().item())
        assert row["l2_normalised"] == pytest.approx((delta.norm() / x.norm()).item())
        assert row["l2_standardised"] == pytest.approx(((delta / std).norm() / ((x - mean) / std).norm()).item())
        clean, cleaned = (module.purifier(each[None].float())[0] for each in (x, moved))
        assert row["purified_signal"] == pytest.approx((cleaned - clean).norm().item(), rel=1e-4)
        assert row["purified_pixel"] == pytest.approx((cleaned - moved).norm().item(), rel=1e-4)


def test_psnr_is_of_clean_images_before_a_purifier_only(done):
    for row in rows(done):
        assert (row["psnr"] is not None) == (row["threat"] == CLEAN and row["defence"] == "blur")


def test_per_class_figures_are_those_of_the_rows(done):
    found = read(done / "measures.csv")
    labels = pictures().labels
    with torch.no_grad():
        right = defence("blur", Blur()).module(pictures().images).argmax(dim=1) == labels
    for kind in labels.unique().tolist():
        value = value_of(found, "accuracy", defence="blur", threat=CLEAN, **{"class": str(kind)})
        assert float(value[0]) == pytest.approx(right[labels == kind].float().mean().item(), abs=1e-5)


def test_curves_of_an_evaluation(done):
    """For l2 the minimal attack fills the curve in between the budgets."""
    found = read(done / "curves.csv")
    points = [p for p in found if (p["defence"], p["threat"], p["distance"]) == ("none", "white_box", "l2")]
    assert len(points) > 10
    at, accuracy = (np.array([float(p[name]) for p in points]) for name in ("at", "accuracy"))
    attacked_rows = rows(done, defence="none", threat="white_box")
    clean = {row["image"]: row["correct"] for row in rows(done, defence="none", threat=CLEAN)}
    nearest = {image: math.inf if fine else 0.0 for image, fine in clean.items()}
    for row in attacked_rows:
        if not row["correct"]:
            nearest[row["image"]] = min(nearest[row["image"]], row["l2"])
    sizes = np.array(list(nearest.values()))
    for place, value in zip(at[:-1], accuracy[:-1], strict=True):
        assert value == pytest.approx((sizes > place * (1 + 1e-5)).mean())
    assert accuracy[-1] == 0
    assert not [p for p in found if p["threat"] == CLEAN]
