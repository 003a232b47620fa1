"""The bounds against scipy's own, against known values, and their coverage by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from s2snet.certification.bounds import Plan, largest_radius, lower_bound, radius


@pytest.mark.parametrize(("successes", "draws"), [(0, 10), (1, 10), (99, 100), (100, 100), (512, 1000)])
def test_the_bound_is_the_exact_one_sided_interval(successes, draws):
    exact = binomtest(successes, draws, alternative="greater").proportion_ci(0.999, method="exact").low
    assert lower_bound(successes, draws, 0.001) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(("draws", "sigmas"), [(100, 1.50), (1_000, 2.46), (10_000, 3.20), (100_000, 3.81)])
def test_draws_that_all_agree_cap_the_radius(draws, sigmas):
    assert largest_radius(draws, 0.001, 1.0) == pytest.approx(sigmas, abs=5e-3)


def test_a_share_of_one_half_or_less_abstains():
    assert radius(50, 100, 0.001, 0.25) == radius(60, 100, 0.001, 0.25) == 0
    assert radius(990, 1000, 0.001, 0.25) == pytest.approx(0.25 * norm.ppf(lower_bound(990, 1000, 0.001)))


def test_more_draws_than_a_stage_are_taken_only_while_they_can_matter():
    plan = Plan(sigma=0.25, radii=(0.25,), draws=10_000)
    assert plan.stages == (100, 1_000, 10_000)
    assert plan.is_over(100, 100)  # certified: 0.25 * 1.4 sigma
    assert not plan.is_over(90, 100)
    assert plan.is_over(200, 1_000)  # the radius needs 84.1 %: hopeless
    assert not plan.is_over(840, 1_000) and plan.is_over(8_400, 10_000)
    assert Plan(sigma=0.25, radii=(0.25,), staged=False).stages == (10_000,)


def test_a_radius_out_of_reach_is_refused_with_the_draws_it_takes():
    with pytest.raises(
        ValueError, match=r"radii=0.7: 100 draws at sigma=0.25 certify at most 0.3751; take draws=10000 "
    ):
        Plan(sigma=0.25, radii=(0.25, 0.7), draws=100)
    with pytest.raises(ValueError, match=r"take a larger sigma$"):
        Plan(sigma=0.25, radii=(2.0,), draws=100)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"sigma": 0}, "sigma=0"), ({"alpha": 1.0}, "alpha=1"), ({"radii": ()}, "radii"), ({"draws": 0}, "draws=0")],
)
def test_settings_out_of_range_are_one_line(options, words):
    with pytest.raises(ValueError, match=words):
        Plan(**{"sigma": 0.25, "radii": (0.25,), **options})


def test_stages_take_a_third_of_the_draws_and_lose_few_certificates():
    """Shares as of a trained classifier: most images clear, some near the threshold."""
    draw = np.random.default_rng(1)
    staged = Plan(sigma=0.25, radii=(0.25,))
    plain = Plan(sigma=0.25, radii=(0.25,), staged=False)
    taken, certified = 0, [0, 0]
    shares = draw.beta(2.0, 0.5, size=1_000)
    for share in shares:
        stages = staged.stages
        steps = np.diff((0, *stages))
        totals = np.cumsum(draw.binomial(steps, share))
        for total, agreeing in zip(stages, totals, strict=True):
            if staged.is_over(int(agreeing), total):
                break
        taken += total
        certified[0] += staged.certified(int(agreeing), total) >= 0.25
        certified[1] += plain.certified(int(totals[-1]), plain.draws) >= 0.25
    assert taken / (1_000 * plain.draws) <= 1 / 3
    assert abs(certified[0] - certified[1]) / 1_000 <= 0.005


@pytest.mark.parametrize("share", [0.6, 0.842, 0.99])
def test_stages_cover_the_true_radius_with_the_stated_confidence(share):
    """At alpha = 0.05, 1,000 repetitions: false certificates stay below alpha plus three standard errors (0.0207)."""
    draw = np.random.default_rng(0)
    plan = Plan(sigma=1.0, radii=(0.2, 1.0, 2.0), draws=1_000, alpha=0.05)
    true, false = norm.ppf(share), 0
    for _ in range(1_000):
        agree = draw.random(plan.draws) < share
        claimed = 0.0
        for total in plan.stages:
            claimed = max(claimed, plan.certified(int(agree[:total].sum()), total))
            if plan.is_over(int(agree[:total].sum()), total):
                break
        false += claimed > true
    assert false / 1_000 <= 0.05 + 0.0207
