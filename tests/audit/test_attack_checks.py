"""Checks of the attacks against each other, on results written by hand."""

import pytest
from handmade import EPS, attacked
from records import RIGHT, N, answer, folder, turned

INDEX = list(range(N))


@pytest.mark.parametrize(("count", "verdict"), [(0, "pass"), (1, "warn"), (3, "fail")])
def test_images_that_only_one_step_finds(count, verdict):
    here = folder(attacked(RIGHT, "a"), attacked(turned(count), "b", attack="fgsm"))
    assert answer("iterative_vs_single", here).verdict == verdict


def test_one_step_before_another_purifier_says_nothing():
    here = folder(attacked(RIGHT, "a"), attacked(turned(9), "b", "gray_box", attack="fgsm"))
    assert answer("iterative_vs_single", here).verdict == "not applicable"


@pytest.mark.parametrize(("count", "verdict"), [(1, "pass"), (2, "warn"), (5, "fail")])
@pytest.mark.parametrize(
    ("check", "threat", "route"),
    [
        ("less_informed", "gray_box", "exact"),
        ("less_informed", "transfer", "exact"),
        ("less_informed", "query", "exact"),
        ("less_informed", "white_box", "identity"),
        ("route_gap", "white_box", "soft"),
        ("route_gap", "white_box", "learned"),
        ("route_gap", "white_box", "smoothed"),
    ],
)
def test_images_that_the_exact_gradient_leaves(check, threat, route, count, verdict):
    here = folder(attacked(turned(7, 50), "a"), attacked(turned(count), "b", threat, route=route))
    found = answer(check, here)
    assert (found.verdict, found.part) == (verdict, "purifier")


def test_what_was_wrong_before_is_nobodys_find():
    wrong = turned(20)
    here = folder(attacked(RIGHT, "a"), attacked(wrong, "b", route="soft"), clean=wrong)
    assert answer("route_gap", here).verdict == "pass"


@pytest.mark.parametrize(("count", "verdict"), [(0, "pass"), (1, "warn"), (3, "fail")])
def test_images_that_only_noise_finds(count, verdict):
    probe = {"noise": {"draws": 60, "eps": EPS, "images": INDEX[:64], "fooled": INDEX[:count]}}
    assert answer("noise", folder(attacked(turned(5, 100), "a"), probes=probe)).verdict == verdict


@pytest.mark.parametrize(("kept", "verdict"), [(150, "pass"), (102, "warn"), (60, "warn")])
def test_a_purifier_no_better_than_its_control(kept, verdict):
    mine = attacked(turned(N - kept), "a", defence="s2snet")
    control = attacked(turned(100), "b", defence="autoencoder")
    assert answer("controls", folder(mine, control), "s2snet").verdict == verdict


@pytest.mark.parametrize(
    ("found", "verdict"), [((100, 100), "pass"), ((100, 105), "warn"), ((120, 120), "fail"), ((120, 80), "warn")]
)
def test_minimal_attacks_against_budget_attacks(found, verdict):
    """Fails only if one kind finds more at two radii."""
    sizes = [EPS / 2] * found[0] + [1.5 * EPS] * max(0, found[1] - found[0]) + [9.0] * N
    if found[1] < found[0]:  # the budget attack finds more at the larger radius
        sizes = [EPS / 2] * found[0] + [9.0] * N
    minimal = attacked([int(size > 1) for size in sizes[:N]], "m", attack="fmn", budget=float("inf"), linf=sizes[:N])
    few = attacked(turned(100), "a")
    many = attacked(turned(100 if found[1] >= found[0] else 140), "b", budget=2 * EPS)
    assert answer("minimal_vs_budget", folder(minimal, few, many)).verdict == verdict


def test_few_images_do_not_compare_kinds_of_attack():
    minimal = attacked([0] * 20, "m", attack="fmn", budget=float("inf"), linf=[EPS / 2] * 20)
    here = folder(minimal, attacked([1] * 20, "a"))
    assert answer("minimal_vs_budget", here).verdict == "not applicable"


def more(**found) -> dict:
    given = {"images": INDEX, "eps": EPS, "fooled": {}, "curve": {"0.01": 0.5, "0.02": 0.4}, "eps_one": 0.0}
    return {"more": given | found}


@pytest.mark.parametrize(
    ("images", "verdict"), [([], "pass"), ([3], "pass"), ([100], "warn"), ([100, 101, 102], "fail")]
)
def test_what_stronger_attacks_gain(images, verdict):
    """Image 3 was fooled before."""
    here = folder(attacked(turned(5), "a"), probes=more(fooled={"exact apgd": images, "exact restarts": images[:1]}))
    assert answer("converged", here).verdict == verdict


@pytest.mark.parametrize(("far", "verdict"), [(0.4, "pass"), (0.505, "warn"), (0.52, "fail")])
def test_more_left_at_a_larger_radius(far, verdict):
    here = folder(attacked(RIGHT, "a"), probes=more(curve={"0.01": 0.5, "0.02": far}))
    assert answer("monotone", here).verdict == verdict


@pytest.mark.parametrize(("left", "verdict"), [(0.0, "pass"), (0.05, "warn"), (0.2, "fail")])
def test_what_is_left_where_any_image_is_allowed(left, verdict):
    assert answer("eps_one", folder(attacked(RIGHT, "a"), probes=more(eps_one=left))).verdict == verdict


@pytest.mark.parametrize(
    ("found", "usable", "chance", "verdict"),
    [
        (20, 20, 0.0, "pass"),
        (18, 20, 0.0, "warn"),
        (17, 20, 0.0, "fail"),
        (0, 15, 0.0, "not applicable"),
        (0, 32, 0.1, "not applicable"),
    ],
)
def test_plants_that_are_not_found(found, usable, chance, verdict):
    seen = {"images": usable, "asked": 32, "found": {"exact pgd": found}, "any": found, "by_chance": chance}
    assert answer("active_test", folder(attacked(RIGHT, "a"), probes={"active": seen})).verdict == verdict
