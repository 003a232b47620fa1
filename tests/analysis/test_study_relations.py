"""study=relations: levels reached exactly, leaders, tournaments and their rules, and a run on tiny networks."""

import shutil

import numpy as np
import pytest
import torch
from benches import bench, splits
from torch import nn

from s2snet import models
from s2snet.analysis.claim import FAILS, HOLDS, UNDECIDED
from s2snet.analysis.relations import claims, classifiers, measures, rankings
from s2snet.analysis.relations.figures import figures
from s2snet.analysis.relations.study import run
from s2snet.config.networks import Classifier
from s2snet.models import freeze
from s2snet.report.studies.sections import read_table

# ------------------------------------------------------------------ levels and budgets


def some_images(count: int = 12, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def linear(weight: torch.Tensor, bias: float) -> nn.Module:
    """Two classes; the margin of class 1 is weight . x + bias."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.stack([torch.zeros(weight.numel()), weight.flatten()]))
        module[1].bias.copy_(torch.tensor([0.0, bias]))
    return freeze(module)


@pytest.mark.parametrize("level", [0.01, 0.2, 0.6])
def test_each_image_is_brought_to_its_own_level_within_the_box(level):
    images = some_images()
    images[0] *= 0.05  # lengths differ twentyfold
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    moved = measures.to_level((images + 0.01 * direction).clamp(0, 1), images, level)
    assert measures.normalised_l2(moved, images).numpy() == pytest.approx(np.full(len(images), level), rel=1e-4)
    assert moved.min() >= 0 and moved.max() <= 1


def test_an_image_that_was_not_moved_stays_and_a_full_box_is_said():
    images = some_images(3)
    assert torch.equal(measures.to_level(images, images, 0.3), images)
    white = torch.full((1, 1, 4, 4), 0.9)
    brighter = measures.to_level(white + 0.01, white, 0.5)  # there is room for a ninth only
    assert measures.normalised_l2(brighter, white).item() == pytest.approx(1 / 9, rel=1e-4)


def test_normalised_l2_is_relative_to_the_pixels_themselves():
    images = torch.full((2, 1, 2, 2), 0.5)
    images[1] = 0
    moved = images.clone()
    moved[0, 0, 0, 0] += 0.1
    assert measures.normalised_l2(moved, images).tolist() == [pytest.approx(0.1), 0]


def test_examples_on_a_linear_model_go_along_its_weights_to_the_level():
    weight = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(2))
    images = 0.4 + 0.2 * some_images(70)
    images[::2] *= 0.5
    labels = torch.ones(70, dtype=torch.int64)
    made = measures.craft(linear(weight, 0.0), images, labels, torch.arange(70), 0.05)
    assert measures.normalised_l2(made, images).numpy() == pytest.approx(np.full(70, 0.05), rel=1e-4)
    cosine = torch.cosine_similarity((made - images).flatten(1), -weight.flatten()[None])
    assert cosine.min() > 0.97 and cosine.mean() > 0.99  # it begins at random


def test_the_smallest_budget_of_a_linear_model_is_its_distance():
    weight = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(2)) / 8
    images = 0.4 + 0.2 * some_images()
    module = linear(weight, 0.15 - float((weight * images).sum(dim=(1, 2, 3)).min()))
    labels = torch.ones(len(images), dtype=torch.int64)
    margin = module(images)[:, 1]
    expected = margin / weight.norm() / images.flatten(1).norm(dim=1)
    actual = measures.budgets(module, images, labels, steps=60)
    assert actual.numpy() == pytest.approx(expected.detach().numpy(), rel=0.02)


def test_who_cannot_be_fooled_needs_the_farthest_corner():
    images = torch.full((1, 1, 2, 2), 0.25)
    actual = measures.budgets(linear(torch.full((1, 2, 2), 1e-3), 5.0), images, torch.tensor([1]), steps=3)
    assert actual.item() == pytest.approx(3)


# ------------------------------------------------------------------ leaders


def matrix(rates: list[list[float]], n: int = 400) -> np.ndarray:
    """Bool [source, judge, n] with these shares, over images in different rankings."""
    random = np.random.default_rng(0)
    return np.stack([[random.permutation(np.arange(n) < rate * n) for rate in row] for row in rates])


def test_columns_and_rows_leave_the_own_cell_out():
    fooled = matrix([[1, 0.2, 0.4], [0.6, 1, 0.1], [0.3, 0.5, 1]])
    assert rankings.fooled_by_others(fooled).mean(axis=1) == pytest.approx([0.45, 0.35, 0.25])
    assert rankings.fooling_others(fooled).mean(axis=1) == pytest.approx([0.3, 0.35, 0.4])


def test_a_leader_is_clear_only_where_the_pairs_say_so():
    names, random = ["a", "b", "c"], np.random.default_rng(0)
    scores = random.random((3, 300))
    shifted = scores + np.array([[0.0], [0.5], [0.2]])
    actual = rankings.leader(names, shifted)
    assert (actual.name, actual.second, actual.clear) == ("b", "c", True)
    assert actual.lead.value == pytest.approx(shifted[1].mean() - shifted[2].mean())
    assert not rankings.leader(names, scores).clear
    lowest = rankings.leader(names, shifted, np.median, lowest=True)
    assert lowest.name == "a" and lowest.lead.value > 0
    paired = np.stack([scores[0], scores[0] + 0.01, scores[0] - 1])  # a hair, but on every image
    assert rankings.leader(names, paired).clear


STRONG = {
    0.1: matrix([[1, 0.2, 0.2], [0.9, 1, 0.6], [0.7, 0.1, 1]]),
    0.2: matrix([[1, 0, 0], [0.9, 1, 0.8], [0.8, 0, 1]]),
}
SETTING = claims.Setting("squares", ("vgg16", "resnet50", "alexnet"), ("v", "r", "a"))


def verdicts(actual: list) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in actual}


def test_the_papers_claims_hold_where_they_are_so_and_fail_where_it_is_another():
    smallest = np.random.default_rng(0).random((3, 400)) + np.array([[0.0], [1.0], [1.0]])
    leaders = rankings.find_leaders(["v", "r", "a"], STRONG, smallest)
    assert verdicts(claims.transfer(leaders, STRONG, SETTING)) == dict.fromkeys(
        ["own_first", "easiest", "furthest", "vgg16_easiest", "resnet50_furthest", "different"], HOLDS
    )
    other = claims.Setting("squares", ("resnet50", "vgg16", "alexnet"), ("v", "r", "a"))
    actual = verdicts(claims.transfer(leaders, STRONG, other))
    assert (actual["vgg16_easiest"], actual["resnet50_furthest"]) == (FAILS, FAILS)
    elsewhere = claims.Setting("squares", ("mlp", "mlp", "mlp"), ("v", "r", "a"))
    assert "vgg16_easiest" not in verdicts(claims.transfer(leaders, STRONG, elsewhere))


def test_leaders_that_change_with_the_level_are_no_leader():
    turned = {0.1: STRONG[0.1], 0.2: STRONG[0.2][::-1, ::-1]}
    actual = verdicts(claims.transfer(rankings.find_leaders(["v", "r", "a"], turned, None), turned, SETTING))
    assert (actual["easiest"], actual["vgg16_easiest"], actual["different"]) == (FAILS, FAILS, UNDECIDED)
    alike = {0.1: matrix([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]])}
    actual = verdicts(claims.transfer(rankings.find_leaders(["v", "r", "a"], alike, None), alike, SETTING))
    assert actual["easiest"] == actual["furthest"] == UNDECIDED


def test_an_attack_that_others_outdo_is_seen():
    outdone = {0.1: matrix([[0.4, 0.5, 0.5], [0.9, 1, 0.5], [0.5, 0.5, 1]])}
    claim = claims.own_examples_fool_most(outdone, "vra")
    assert claim.verdict == FAILS and "for v at 0.1" in claim.found and "than of r's" in claim.found


def test_same_leader_of_both_contradicts_the_paper():
    fooled = {0.1: matrix([[1, 0.8, 0.8], [0.9, 1, 0.1], [0.9, 0.1, 1]])}
    actual = verdicts(claims.transfer(rankings.find_leaders(["v", "r", "a"], fooled, None), fooled, SETTING))
    assert actual["different"] == FAILS


def test_an_s2snet_that_helps_and_one_that_harms():
    leaders = rankings.find_leaders(["v", "r", "a"], STRONG, None)
    leaders |= {f"{key}_behind": value for key, value in leaders.items()}
    weak = {level: part & matrix([[0.3] * 3] * 3) for level, part in STRONG.items()}
    helped = claims.defended(leaders, {0.1: STRONG[0.1]}, {0.1: weak[0.1]}, SETTING)
    assert verdicts(helped)["defended"] == HOLDS
    harmed = claims.defended(leaders, {0.1: weak[0.1]}, {0.1: STRONG[0.1]}, SETTING)
    assert verdicts(harmed)["defended"] == FAILS
    del leaders["easiest_behind"]
    assert verdicts(claims.defended(leaders, STRONG, STRONG, SETTING)) == {"defended": UNDECIDED}


# ------------------------------------------------------------------ orders

ORDER = np.triu(np.ones((4, 4), dtype=bool), 1)  # 0 beats 1 beats 2 beats 3
CIRCLE = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=bool)


def test_triads_of_an_order_a_circle_and_a_tie():
    assert rankings.is_order(ORDER) and rankings.circular_triads(ORDER) == 0 and rankings.consistence(ORDER) == 1
    assert not rankings.is_order(CIRCLE) and rankings.circular_triads(CIRCLE) == 1 and rankings.consistence(CIRCLE) == 0
    tied = ORDER.copy()
    tied[2, 3] = False
    assert not rankings.is_order(tied) and rankings.circular_triads(tied) > 0


@pytest.mark.parametrize(
    "count, known",
    [
        (3, {0: 6 / 8, 1: 2 / 8}),
        (4, {0: 24 / 64, 1: 16 / 64, 2: 24 / 64}),  # Kendall and Babington Smith 1940, table
        (5, {0: 120 / 1024, 1: 120 / 1024, 2: 240 / 1024, 3: 240 / 1024, 4: 280 / 1024, 5: 24 / 1024}),
    ],
)
def test_the_chance_distribution_is_the_known_one(count, known):
    assert rankings.by_chance(count) == pytest.approx(known)


def test_of_many_networks_tournaments_are_drawn():
    share = rankings.by_chance(7)
    mean = sum(triads * part for triads, part in share.items())
    assert mean == pytest.approx(35 / 4, rel=0.01)  # a quarter of the threes
    assert rankings.chance(CIRCLE) == 1 and rankings.chance(ORDER) == 24 / 64


def cross(advantage: float = 0.1, n: int = 500) -> np.ndarray:
    """Bool [signal, reader, n]: reader k loses `advantage` for each place that it stands behind the signal's owner."""
    rates = [[0.9 - advantage * max(0, reader - signal) for reader in range(4)] for signal in range(4)]
    return matrix(rates, n)


def test_beats_is_who_reads_the_others_signal_better():
    accuracy = np.array([[0.9, 0.5], [0.8, 0.7]])  # reader 1 has 0.5 on signal 0; reader 0 has 0.8 on signal 1
    assert rankings.beats(accuracy).tolist() == [[False, True], [False, False]]
    # against what each has on its own signal: 0 loses 0.1 and 1 loses 0.2
    assert rankings.beats(accuracy, relative=True).tolist() == [[False, True], [False, False]]
    weak = np.array([[0.9, 0.6], [0.8, 0.6]])  # reader 1 loses nothing
    assert rankings.beats(weak, relative=True).tolist() == [[False, False], [True, False]]


def test_an_order_in_the_matrix_is_found_and_noise_is_not_taken_for_one():
    actual = rankings.tournament(list("abcd"), cross())
    assert actual.text == "a > b > c > d" and actual.is_order and actual.share == 1 and actual.chance == 24 / 64
    noise = rankings.tournament(list("abcd"), np.random.default_rng(0).random((4, 4, 300)) < 0.9)
    assert noise.share < 0.9


def of_orders(correct: np.ndarray, own: np.ndarray, sizes, information) -> dict[str, str]:
    tournaments = {
        kind: rankings.tournament(list("abcd"), correct, kind == "relative") for kind in ("plain", "relative")
    }
    setting = claims.Setting("squares", ("mlp",) * 4, tuple("abcd"))
    return verdicts(claims.orders(list("abcd"), correct, own, np.array(sizes), information, tournaments, setting))


def test_claims_of_an_order():
    falling = np.array([[0.9], [0.8], [0.7], [0.6]]) > np.linspace(0, 1, 500)
    information = np.array([[0.1], [0.2], [0.3], [0.4]]) + 0.01 * np.random.default_rng(0).random((4, 50))
    actual = of_orders(cross(), falling, [1, 3, 2, 4], information)
    assert (actual["order"], actual["neither"], actual["information"]) == (HOLDS, FAILS, HOLDS)
    assert actual["beyond_chance"] == UNDECIDED  # with four an order is too likely
    mixed = falling[[2, 0, 3, 1]]
    actual = of_orders(cross(), mixed, [1, 3, 2, 4], information[[1, 3, 0, 2]])
    assert (actual["neither"], actual["information"]) == (HOLDS, FAILS)


def test_a_circle_is_no_order_and_six_in_order_are_beyond_chance():
    rates = np.full((3, 3), 0.9)
    rates[[1, 2, 0], [0, 1, 2]] = 0.95  # 0 reads 1's, 1 reads 2's, 2 reads 0's
    rates[[0, 1, 2], [1, 2, 0]] = 0.5
    circle = rankings.tournament(list("abc"), matrix(rates.tolist(), 1000))
    setting = claims.Setting("squares", ("mlp",) * 3, tuple("abc"))
    assert claims.is_order("order", "", circle, 2000, setting).verdict == FAILS
    assert claims.beyond_chance(circle, 3).verdict == FAILS
    rates = [[0.9 - 0.1 * max(0, reader - signal) for reader in range(6)] for signal in range(6)]
    assert claims.beyond_chance(rankings.tournament(list("abcdef"), matrix(rates, 1000)), 6).verdict == HOLDS


def test_own_signals_are_read_best_or_not():
    own_best = matrix([[0.9, 0.5, 0.5], [0.5, 0.9, 0.5], [0.5, 0.5, 0.9]])
    assert claims.own_signal_read_best(own_best, "abc").verdict == HOLDS
    assert claims.own_signal_read_best(own_best[::-1], "abc").verdict == FAILS
    assert claims.own_signal_read_best(matrix([[0.9] * 3] * 3), "abc").verdict == UNDECIDED


def test_mutual_information_knows_the_same_a_relabelling_and_noise():
    images = some_images(4, channels=2)
    assert measures.mutual_information(images, images) == pytest.approx(np.ones(4))
    assert measures.mutual_information(images, 1 - images, bins=256) == pytest.approx(np.ones(4))
    flat = torch.full_like(images, 0.5)
    assert measures.mutual_information(images, flat) == pytest.approx(np.zeros(4), abs=1e-9)
    big = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    other = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(4))
    assert measures.mutual_information(big, other, bins=4).max() < 0.01


# ------------------------------------------------------------------ networks, and the study whole

ENTRIES = [
    {"label": "softmax", "name": "mlp", "hidden": []},
    {"label": "mlp", "name": "mlp", "hidden": [8]},
    {"label": "a cnn", "name": "small_cnn", "widths": [4, 8]},
]
TINY = {
    "networks": ENTRIES,
    "images": 60,
    "attacked": 20,
    "levels": (0.1, 0.4),
    "steps": 3,
    "budget_steps": 5,
    "epochs": 8,
    "lr": 1e-2,
    "batch_size": 16,
    "autoencoder_options": {"widths": [8, 8], "convs": [1, 1]},
    "stage1_epochs": 20,
    "stage2_epochs": 15,
    "nmi_images": 5,
    "shown": 2,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(folder, claims) of the study on tiny networks."""
    folder = tmp_path_factory.mktemp("relations")
    place = bench("relations", folder, splits())
    actual = run(place, **TINY)
    place.finish(actual, {"command": "", "options": {}})
    return folder, actual


def test_the_study_has_its_claims_tables_and_figures(study):
    folder, actual = study
    assert [claim.name for claim in actual] == [
        "own_first", "easiest", "furthest", "different", "defended", "easiest_behind", "furthest_behind", "own_signal",
        "order", "order_relative", "beyond_chance", "neither", "information",
    ]  # fmt: skip
    tables = {path.stem: read_table(path) for path in folder.glob("*.csv")}
    sizes = {name: len(rows) for name, rows in tables.items()}
    assert sizes == {
        "networks": 3, "transfer": 2 * 2 * 9, "leaders": 3 + 2 + 2 + 2, "cross": 9, "pairs": 3, "orders": 2
    }  # fmt: skip
    assert min(row["accuracy"] for row in tables["networks"]) > 0.8
    for row in tables["transfer"]:
        assert row["least_level"] == pytest.approx(row["level"], rel=1e-3)
        assert 0 <= row["fooled_low"] <= row["fooled"] <= row["fooled_high"] <= 1
    own = {row["reader"]: row["accuracy"] for row in tables["cross"] if row["signal"] == row["reader"]}
    assert own == {row["network"]: row["accuracy_behind"] for row in tables["networks"]}
    questions = {row["question"] for row in tables["leaders"]}
    assert questions == {"easiest", "furthest", "easiest_behind", "furthest_behind"}
    drawn = figures(tables)
    assert [figure.name for figure in drawn] == [
        "transfer-bare", "transfer-s2snet", "easiest", "furthest", "cross", "information"
    ]  # fmt: skip


def test_the_stage_1_is_one_and_each_stage_2_its_own(study):
    parts = sorted(path.name.rpartition("-")[0] for path in (study[0] / "parts").iterdir() if path.is_dir())
    assert parts == ["s2snet-a_cnn", "s2snet-mlp", "s2snet-softmax", "stage1"]


def test_a_second_run_makes_nothing_again_and_a_level_more_only_that(study, monkeypatch):
    folder, actual = study
    before = {path: path.stat().st_mtime_ns for path in (folder / "parts").rglob("*") if path.is_file()}
    levels = []
    crafted = measures.craft
    monkeypatch.setattr(measures, "craft", lambda *given, **more: levels.append(given[4]) or crafted(*given, **more))
    assert run(bench("relations", folder, splits()), **TINY) == actual
    assert levels == [] and {path: path.stat().st_mtime_ns for path in before} == before
    run(bench("relations", folder, splits()), **{**TINY, "levels": (0.1, 0.2, 0.4)})
    assert levels == [0.2] * 3


def test_an_interrupted_run_goes_on_to_the_same(study, tmp_path, monkeypatch):
    trained = shutil.ignore_patterns("fooled-*", "read-*", "nmi-*", "budgets-*")
    shutil.copytree(study[0] / "parts", tmp_path / "parts", ignore=trained)
    crafted, left = measures.craft, [2, 1]

    def interrupted(*given, **options):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return crafted(*given, **options)

    monkeypatch.setattr(measures, "craft", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(bench("relations", tmp_path, splits()), **TINY)
    assert len(list(tmp_path.glob("parts/fooled-*"))) == 2
    monkeypatch.setattr(measures, "craft", crafted)
    place = bench("relations", tmp_path, splits())
    place.finish(run(place, **TINY), {})
    for path in study[0].glob("*.csv"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_networks_with_weights_are_loaded_by_the_bench(tmp_path):
    """Published weights and a user's own are loaded by the bench, with channels and classes from the data."""
    asked = []

    def find_classifier(classifier):
        asked.append(classifier)
        return models.build(**classifier.config)

    place = bench("relations", tmp_path, splits(channels=3, size=32), find_classifier=find_classifier)
    given = {"label": "r", "name": "resnet20", "weights": "file.th"}
    module = classifiers._classifier(place, given, None, {})
    assert not module.training and module.config["classes"] == 3
    assert asked == [Classifier("resnet20", {"channels": 3, "classes": 3}, weights="file.th")]


@pytest.mark.parametrize("changed, line", [
    ({"networks": ENTRIES[:2]}, r"networks=\['softmax', 'mlp'\]: at least 3"),
    ({"networks": [*ENTRIES, ENTRIES[0]]}, "each with a label of its own"),
    ({"networks": [{"name": "mlp"}, *ENTRIES]}, "needs a label and a name"),
    ({"networks": [{"label": "x", "name": "mpl"}, *ENTRIES]}, "did you mean 'mlp'"),
    ({"levels": (0.0, 0.1)}, r"levels=\[0.0, 0.1\]: normalised L2, above 0"),
])  # fmt: skip
def test_bad_input_is_one_line(tmp_path, changed, line):
    with pytest.raises(ValueError, match=line):
        run(bench("relations", tmp_path, splits()), **{**TINY, **changed})


def test_networks_that_are_seldom_all_right_are_one_line():
    own = np.zeros((3, 50), dtype=bool)
    own[:, :4] = True
    from s2snet.analysis.bench import Sample
    from s2snet.analysis.relations.study import _all_right

    with pytest.raises(ValueError, match="all classifiers together have 4 of 50 images right; at least 10 are needed"):
        _all_right(own, Sample(torch.zeros(50, 1, 2, 2), torch.zeros(50), torch.arange(50)), 20)
