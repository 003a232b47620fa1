"""study=linearity: its measures on cases with a known answer, and a resumable run on tiny nets."""

import itertools
import math

import numpy as np
import pytest
import torch
from benches import bench, splits

from s2snet.analysis.bench import Sample
from s2snet.analysis.claim import FAILS, HOLDS
from s2snet.analysis.intervals import Estimate, share
from s2snet.analysis.linearity import measures, paper_figures, study, training
from s2snet.analysis.linearity.attacked import Ensemble, agreements, fooling, judge, normal, rubbish
from s2snet.analysis.linearity.claims import slope
from s2snet.analysis.linearity.measures import (
    growth,
    probabilities,
    resize,
    scores_along,
    sign_step,
    stretches,
    unexplained,
)
from s2snet.analysis.linearity.nets import COLUMN, HEADS, RBF, Maxout, Net, Softmax, Tanh
from s2snet.analysis.linearity.training import CURVE, Recipe, Trained, fit, loss, noise
from s2snet.attacks import fgsm
from s2snet.report.studies.sections import section

PAIR = (0, 1)
TINY = {
    "epochs": 2, "batch": 10, "units": 8, "pieces": 2, "radii": [0.1], "alphas": [0.25], "members": 2, "lines": 4,
    "points": 21, "segments": 3, "pair": PAIR, "scales": [0.5, 1.0], "draws": 2, "rubbish": 60, "fooling": 20,
}  # fmt: skip


def sample(count: int = 60, size: int = 8) -> Sample:
    images = splits(count, size).train
    return Sample(images.images, images.labels, images.index)


class Fixed(Net):
    """Scores that are a linear function with given weights [K, n]."""

    def __init__(self, weight: torch.Tensor, head: str = "softmax"):
        super().__init__()
        self.weight, self.head = weight, head

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


# Nets and their costs


def test_an_rbf_units_probability_is_the_formulas():
    net = RBF(torch.rand(3, 1, 2, 2), width=0.5)
    image, unit = torch.rand(1, 1, 2, 2), 1
    away = image.flatten() - net.centres[unit]
    form = -torch.diag(net.widths[unit] ** 2)
    assert torch.linalg.eigvalsh(form.detach()).max() < 0
    assert net.probabilities(image)[0, unit].item() == pytest.approx(torch.exp(away @ form @ away).item(), rel=1e-5)
    assert net.probabilities(net.centres.view(3, 1, 2, 2))[0, 0].item() == 1


@pytest.mark.parametrize("head", ["sigmoid", "exponential"])
def test_a_yes_or_no_per_class_costs_the_sum_of_their_logarithms(head):
    scores = -torch.rand(4, 3, dtype=torch.float64) - 0.1
    labels = torch.tensor([0, 1, 2, 0])
    p = HEADS[head].probabilities(scores)
    wanted = [-(p[i, y].log() + sum((1 - p[i, k]).log() for k in range(3) if k != y)) for i, y in enumerate(labels)]
    assert torch.allclose(HEADS[head].cost(scores, labels), torch.stack(wanted))


def test_a_maxout_unit_is_the_largest_of_its_pieces_and_its_weights_are_bounded():
    net = Maxout(4, 3, units=2, pieces=3, init=5.0).eval()
    net.bound()
    assert net.first.weight.norm(dim=1).max() <= COLUMN + 1e-5
    image = torch.rand(1, 1, 2, 2)
    pieces = net.first(image.flatten(1))[0]
    hidden = torch.stack([max(pieces[unit::2]) for unit in range(2)])
    pieces = net.second(hidden)
    hidden = torch.stack([max(pieces[unit::2]) for unit in range(2)])
    assert torch.allclose(net.top(hidden), net(image)[0], atol=1e-5)


# The step and the training


@pytest.mark.parametrize("net", [Softmax(64, 3), Maxout(64, 3, 8, 2, init=0.3)], ids=["softmax", "maxout"])
def test_the_step_cut_to_the_range_of_pixels_is_fgsm(net):
    given = sample()
    torch.nn.init.normal_(next(net.parameters()))
    step = sign_step(net.eval(), given.images, given.labels, 0.25)
    assert step.min() < 0 and step.max() > 1
    assert torch.allclose(step.clamp(0, 1), fgsm(net, given.images, given.labels, eps=0.25), atol=1e-6)


def fitted(net: Net, recipe: Recipe) -> Trained:
    parts = [sample(), sample(30), sample(40)]
    trained = Trained(net, recipe.epochs)
    fit(trained, *parts, recipe)
    return trained


def begun(seed: int = 0, dropout: tuple = (0.0, 0.0)) -> Maxout:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Maxout(64, 3, 8, 2, 0.1, dropout)


def test_adversarial_training_at_eps_0_is_clean_training_bit_for_bit():
    made = [fitted(begun(), Recipe(kind=kind, eps=0.0, epochs=3, batch=20)) for kind in ("clean", "adversarial")]
    states = [each.state_dict() for each in made]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_alpha_weighs_the_clean_cost():
    given, net = sample(), begun()
    attacked = sign_step(net.eval(), given.images, given.labels, 0.25)
    clean, hard = (net.cost(images, given.labels).mean() for images in (given.images, attacked))
    actual = loss(net, given.images, given.labels, Recipe(kind="adversarial", alpha=0.3))
    assert actual.item() == pytest.approx((0.3 * clean + 0.7 * hard).item(), rel=1e-5)
    assert loss(net, given.images, given.labels, Recipe(l1=0.5)).item() == pytest.approx(
        (clean + 0.5 * net.first.weight.abs().sum()).item(), rel=1e-5
    )


def test_noise_is_of_its_kind():
    images = torch.zeros(50, 1, 8, 8)
    signs, uniform = (noise(images, Recipe(kind=kind, eps=0.2)) for kind in ("signs", "uniform"))
    assert signs.unique().tolist() == pytest.approx([-0.2, 0.2]) and abs(signs.mean()) < 0.02
    assert 0.19 < uniform.max() <= 0.2 and -0.2 <= uniform.min() < -0.19 and abs(uniform.std() - 0.2 / 3**0.5) < 0.01
    assert noise(images, Recipe()) == 0


def test_the_epoch_of_least_monitor_is_kept_and_a_seed_says_all():
    recipe = Recipe(epochs=6, batch=20, seed=3, eps=0.1)
    first, again = (fitted(begun(dropout=(0.2, 0.5)), recipe) for _ in range(2))
    assert torch.equal(first.net.first.weight, again.net.first.weight) and torch.equal(first.curve, again.curve)
    given = sample(30)
    wrong = (first.net(given.images).argmax(1) != given.labels).double().mean().item()
    assert wrong == pytest.approx(first.curve[:, CURVE.index("validation")].min().item())
    other = fitted(begun(dropout=(0.2, 0.5)), Recipe(epochs=6, batch=20, seed=4, eps=0.1))
    assert not torch.equal(first.net.first.weight, other.net.first.weight)


@pytest.mark.parametrize(
    "given, line", [({"kind": "hard"}, "hard"), ({"alpha": 2.0}, "alpha=2"), ({"epochs": 0}, "=0")]
)
def test_a_recipe_that_cannot_be_followed_is_refused(given, line):
    with pytest.raises(ValueError, match=line):
        Recipe(**given)


# Lines


def test_straight_pieces_leave_nothing_and_a_parabola_what_it_must():
    x = np.linspace(-1, 1, 241)
    bent = np.where(x < -0.3, -2 * x, np.where(x < 0.4, 5 * x + 2, 0.1 * x))
    left = unexplained(np.stack([3 * x + 1, bent, x**2, np.full_like(x, 7)]), 4)
    assert left[0].max() < 1e-12 and left[3].max() == 0
    assert left[1, 1] > 1e-3 and left[1, 2:].max() < 1e-12
    assert left[2] == pytest.approx([1, 1 / 16, 1 / 81, 1 / 256], rel=0.1)


def test_the_pieces_are_the_best_there_are():
    curve, x = np.random.default_rng(0).normal(size=9), np.arange(9.0)

    def error(first: int, end: int) -> float:
        if end - first < 3:
            return 0.0
        fit = np.polyfit(x[first:end], curve[first:end], 1)
        return float(np.square(np.polyval(fit, x[first:end]) - curve[first:end]).sum())

    cuts = [(0, a, b, 9) for a, b in itertools.combinations(range(1, 9), 2)]
    best = min(sum(error(i, j) for i, j in itertools.pairwise(cut)) for cut in cuts)
    assert unexplained(curve[None], 3)[0, 2] == pytest.approx(best / (9 * curve.var()))


def test_tanh_bends_where_softmax_regression_is_straight():
    torch.manual_seed(0)
    given, offsets = sample(6), torch.linspace(-15, 15, 61)
    nets = [Softmax(64, 3), Tanh(64, 3, 16)]
    torch.nn.init.normal_(nets[0].layer.weight)
    left = []
    for net in nets:
        with torch.no_grad():
            scores = scores_along(net, given.images, given.labels, offsets)
        assert torch.allclose(scores[:, 30], net(given.images))
        left.append(unexplained(scores[0].detach().double().numpy().T, 3)[:, 2].mean())
    assert left[0] < 1e-8 < 1e-4 < left[1]


def test_stretches_of_a_line_by_hand():
    offsets = np.linspace(-4, 4, 9)
    predictions = np.array([[2, 2, 2, 1, 1, 1, 0, 0, 1], [0] * 9])
    actual = stretches(predictions == 1, predictions, offsets)
    assert actual["right_around_0"].tolist() == [2, 0]
    assert actual["longest_wrong"].tolist() == [2, 8]
    assert actual["right_up"].tolist() == [0.5, 0] and actual["right_down"].tolist() == [0.25, 0]


# Linear models


def signed(count: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.rand(count, 5, generator=random, dtype=torch.float64)
    weight = torch.randn(5, generator=random, dtype=torch.float64)
    return weight, torch.tensor(0.3, dtype=torch.float64), x, 2.0 * (torch.arange(count) % 2).double() - 1


def test_the_closed_form_is_the_worst_of_all_corners():
    weight, bias, images, signs = signed()
    corners = torch.tensor(list(itertools.product((-0.25, 0.25), repeat=5)), dtype=torch.float64)
    worst = torch.stack([measures.clean_loss(weight, bias, images + corner, signs) for corner in corners]).amax(dim=0)
    assert torch.allclose(measures.closed_form_loss(weight, bias, images, signs, 0.25), worst)
    assert torch.allclose(measures.fgsm_loss(weight, bias, images, signs, 0.25), worst)


def test_fgsm_training_is_training_on_the_closed_form_and_the_printed_one_is_right_for_plus_only():
    _, _, images, signs = signed(60)
    steps = list(measures.train_logistic(images, signs, "fgsm", 0.1, epochs=10, seed=0, batch=20))
    assert len(steps) == 31 and not torch.equal(steps[0][2], steps[-1][2])
    actual = [measures.differences(w, b, images[at], signs[at], 0.1) for _, at, w, b in steps]
    assert max(row["loss"] for row in actual) < 1e-6 and max(row["gradient"] for row in actual) < 1e-6
    assert max(row["printed_plus"] for row in actual) < 1e-6 < 1e-3 < actual[-1]["printed_minus"]


def test_another_loss_would_not_pass_for_the_closed_form(monkeypatch):
    monkeypatch.setattr(measures, "closed_form_loss", measures.printed_loss)
    actual = measures.differences(*signed(), 0.25)
    assert actual["loss"] > 1e-2 and actual["gradient"] > 1e-3


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="loss=l2: allowed are clean, fgsm, l1"):
        next(measures.train_logistic(*signed()[2:], "l2", 0.1, 1, 0))


def test_growth_is_what_the_weights_say_and_a_power_is_found():
    images, labels = sample().images, sample().labels
    chosen = labels < 2
    actual = growth(images[chosen], (2 * labels[chosen] - 1).double(), 0.25)
    assert actual["pixels"] == 64
    assert actual["worst"] == pytest.approx(0.25 * 64 * actual["weight"])
    assert actual["random"] < actual["worst"] < actual["random"] * math.sqrt(64) + 1e-9
    assert slope([4, 16, 64], [3 * n**0.7 for n in (4, 16, 64)]) == pytest.approx(0.7)
    assert resize(images, 0.5).shape[-1] == 4 and resize(images, 2).shape[-1] == 16
    assert torch.allclose(resize(images, 0.5).mean(), images.mean())


# Errors, agreement, noise


def test_agreement_is_counted_over_either_and_over_both():
    labels, images = torch.zeros(4, dtype=torch.int64), torch.eye(4).view(4, 1, 2, 2)
    first = Fixed(torch.eye(3)[[1, 1, 2, 0]].T)  # wrong on three images
    second = Fixed(torch.eye(3)[[1, 2, 0, 1]].T)  # wrong on the first two, and on the last
    rows = list(agreements({"a": first, "b": second}, images, labels, "a"))
    actual = {(row["first"], row["among"]): (row["same"], row["n"]) for row in rows}
    assert actual["a", "first wrong"] == (pytest.approx(1 / 3), 3) and actual["a", "both wrong"] == (0.5, 2)
    assert actual["b", "first wrong"] == (pytest.approx(1 / 3), 3) and actual["b", "both wrong"] == (0.5, 2)


def test_judging_says_error_and_confidence_of_all_and_of_mistakes():
    images, weight = torch.eye(4).view(4, 1, 2, 2), torch.zeros(2, 4)
    weight[0, :3], weight[1, 3] = 2.0, 1.0
    row = judge(Fixed(weight), images, torch.tensor([0, 0, 1, 1]))
    sure, less = torch.tensor([2.0, 1.0]).sigmoid().tolist()
    assert (row["n"], row["error"]) == (4, 0.25)
    assert row["confidence"] == pytest.approx((3 * sure + less) / 4)
    assert row["confidence_mistakes"] == pytest.approx(sure)
    assert judge(Fixed(weight), images[:2], torch.tensor([0, 0]))["confidence_mistakes"] is None


def test_an_ensemble_averages_probabilities_and_is_attacked_through_all():
    nets = [Fixed(torch.randn(3, 4)) for _ in range(2)]
    together, images = Ensemble(nets), torch.rand(5, 1, 2, 2)
    mean = (probabilities(nets[0], images) + probabilities(nets[1], images)) / 2
    assert torch.allclose(probabilities(together, images), mean)
    assert torch.allclose(together(images).softmax(1), mean, atol=1e-6)
    assert torch.allclose(together.cost(images, torch.zeros(5, dtype=torch.int64)), -mean[:, 0].log(), atol=1e-5)


def test_noise_is_an_error_where_a_class_has_more_than_one_half():
    shape, cpu = torch.Size((1, 2, 2)), torch.device("cpu")
    weight = torch.tensor([[100.0, 0, 0, 0], [-100.0, 0, 0, 0]])
    sure, unsure = rubbish(Fixed(weight), shape, 300, 0, cpu), rubbish(Fixed(0 * weight), shape, 300, 0, cpu)
    assert sure["error"] > 0.99 and unsure["error"] == 0 and unsure["confidence"] is None
    positive = (torch.cat(list(normal(shape, 300, 0, cpu)))[:, 0, 0, 0] > 0).double().mean().item()
    assert sure["class 0"] == pytest.approx(positive, abs=0.01)
    far = RBF(torch.zeros(2, 1, 2, 2), width=5.0)
    assert rubbish(far, shape, 300, 0, cpu)["error"] < 0.02


def test_one_step_to_a_class_raises_it():
    net = Fixed(torch.tensor([[1.0, 1, 1, 1], [-1.0, -1, -1, -1]]))
    rows = list(fooling(net, torch.Size((1, 2, 2)), 400, 2.0, 0, torch.device("cpu")))
    assert [row["class"] for row in rows] == [0, 1]
    # scores differ by 2 x the sum; the step moves the sum of N(0, 4) by 8
    assert all(row["success"] > 0.99 and 0.4 < row["before"] < 0.6 for row in rows)


def test_a_paper_figure_is_met_by_an_interval_that_comes_near():
    figure = paper_figures.Figure("x", "section 0", 0.80)
    assert paper_figures.met(figure, Estimate(0.70, 0.66, 0.76, 100), within=0.05)
    assert not paper_figures.met(figure, Estimate(0.70, 0.66, 0.74, 100), within=0.05)
    assert not paper_figures.met(figure, Estimate(0.90, 0.86, 0.94, 100), within=0.05)
    assert not paper_figures.met(paper_figures.Figure("x", "section 0", 0.0094), share(190, 10000), 0.05)
    assert paper_figures.met(paper_figures.Figure("x", "section 0", 0.999), share(10000, 10000), 0.05)
    bound = paper_figures.Figure("x", "section 0", 0.05, at_least=True)
    assert paper_figures.met(bound, share(50, 100), 0.05) and not paper_figures.met(bound, share(5, 100), 0.05)
    near, far = (paper_figures.claim("maxout", share(n, 1000), None, 0.05, "reason") for n in (880, 500))
    assert (near.verdict, near.because, far.verdict, far.because) == (HOLDS, "", FAILS, "reason")


# The study


def run(folder, **more):
    log = []
    place = bench("linearity", folder, splits(size=8), log=log.append)
    claims = study.run(place, **TINY | more)
    place.finish(claims, {"command": "x", "options": {}, "defences": [], "notes": []})
    return place, claims, log


def test_the_study_runs_goes_on_and_is_shown(tmp_path, monkeypatch):
    place, claims, log = run(tmp_path)
    assert len([line for line in log if "training" in line]) == 11
    assert len({claim.name for claim in claims}) == len(claims) > 20
    assert not any(claim.name.startswith("paper: ") for claim in claims)  # these are not its images
    assert {row["figure"] for row in place.tables["paper"]} <= set(paper_figures.FIGURES)
    assert {claim.name: claim.verdict for claim in claims}["closed form"] == HOLDS
    shown = section(tmp_path)
    assert len(shown["figures"]) == 8 and len(shown["grids"]) == 2

    trained = []
    monkeypatch.setattr(training, "fit", lambda new, *rest: trained.append(new) or fit(new, *rest))
    assert run(tmp_path)[1] == claims and not trained
    (part,) = (tmp_path / "parts").glob("tanh-*")  # what an interruption would not have left
    part.unlink()
    assert run(tmp_path)[1] == claims and len(trained) == 1
    run(tmp_path, alphas=[0.75])
    assert len(trained) == 2


def test_on_the_papers_data_each_figure_is_a_claim(tmp_path):
    place = bench("linearity", tmp_path, splits(size=8))
    place.data = "mnist"
    claims = study.run(place, **TINY | {"epochs": 1})
    actual = [claim for claim in claims if claim.name.startswith("paper: ")]
    assert {claim.name.removeprefix("paper: ") for claim in actual} >= {"softmax", "maxout", "adversarial", "signs"}
    assert all(claim.because for claim in actual if claim.verdict == FAILS)
    assert "64 pixels" in next(claim.because for claim in actual if claim.because)


@pytest.mark.parametrize(
    "given, line",
    [
        ({"points": 20}, "points=20: an odd number"),
        ({"pair": (0, 9)}, r"pair=\[0, 9\]: two different classes from 0 to 2"),
        ({"members": 1}, "members=1"),
        ({"eps": 0.0}, "eps=0.0: above 0"),
        ({"segments": 2}, "segments=2"),
        ({"within": 5.0}, "within=5.0"),
    ],
)
def test_options_that_cannot_be_followed_are_one_line(tmp_path, given, line):
    with pytest.raises(ValueError, match=line):
        run(tmp_path, **given)


def test_a_class_without_training_images_is_one_line():
    given = sample()
    with pytest.raises(ValueError, match="class 3 has no training image"):
        training.class_means(given, 4)
