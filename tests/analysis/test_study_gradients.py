"""study=gradients: its measures in closed form, its rules, and a resumable run on tiny networks."""

import math

import numpy as np
import pytest
import torch
from benches import bench, splits
from torch import nn

from s2snet import models
from s2snet.analysis import batched
from s2snet.analysis.claim import FAILS, HOLDS, UNDECIDED
from s2snet.analysis.gradients import claims as rules
from s2snet.analysis.gradients import figures as drawing
from s2snet.analysis.gradients import measures
from s2snet.analysis.gradients.study import run
from s2snet.analysis.gradients.tables import MEASURES, OBJECTIVES
from s2snet.models import Defended, freeze

# ------------------------------------------------------------------ measures


def alike(per_class: int = 20, classes: int = 3, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients [n, 1, 4, 4] that point along a direction of their class's own, of any length."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(per_class)
    axes = torch.eye(16)[:classes].view(classes, 1, 4, 4)
    lengths = 10 ** torch.randn(len(labels), 1, 1, 1, generator=generator)
    return lengths * (axes[labels] + noise * torch.randn(len(labels), 1, 4, 4, generator=generator)), labels


def test_class_gap_is_one_of_orthogonal_classes_and_none_of_noise():
    actual, labels = alike()
    ones = torch.ones(1, len(labels))
    assert measures.class_gap(actual, labels, ones).item() == pytest.approx(1)
    noise = torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(300) % 3
    gap = measures.class_gap(noise, labels, torch.ones(1, 300)).item()
    resampled = measures.class_gap(noise, labels, measures.resamples(300, 400, 0))
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert abs(gap) < 0.01 and low < 0 < high


def test_class_gap_counts_no_pair_of_an_image_with_itself_and_no_image_without_gradient():
    actual, labels = torch.eye(4).view(4, 1, 2, 2), torch.tensor([0, 0, 1, 1])
    doubled = torch.tensor([[2.0, 1, 1, 1]])
    assert measures.class_gap(actual, labels, doubled).item() == 0
    actual, labels = alike()
    actual[0] = 0
    assert measures.class_gap(actual, labels, torch.ones(1, len(labels))).item() == pytest.approx(1)


def test_the_probe_finds_the_class_where_it_is_and_chance_where_it_is_not():
    actual, labels = alike(noise=0.1)
    small = measures.features(actual, 2)
    assert np.linalg.norm(small, axis=1) == pytest.approx(np.ones(len(small)))
    whole, names = measures.features(actual, 8), labels.numpy()
    assert whole.shape == (60, 16) and measures.probe(whole, names, 5, 0).all()
    assert measures.probe(whole, measures.shuffled(names, 0), 5, 0).mean() < 0.55
    with pytest.raises(ValueError, match=r"folds=30: a class has 20 images"):
        measures.probe(whole, names, 30, 0)


def test_agreement_is_a_cosine_and_none_without_a_gradient():
    first = torch.tensor([[[[1.0, 0]]], [[[1.0, 0]]], [[[2.0, 0]]], [[[0.0, 0]]]])
    second = torch.tensor([[[[5.0, 0]]], [[[0.0, 3]]], [[[-1.0, 0]]], [[[1.0, 0]]]])
    assert measures.agreement(first, second)[:3].tolist() == [1, 0, -1]
    assert math.isnan(measures.agreement(first, second)[3])


@pytest.mark.parametrize("cycles", [0, 1, 3, 8])
def test_a_waves_power_lies_at_its_frequency(cycles):
    wave = torch.cos(2 * torch.pi * cycles * torch.arange(16) / 16).expand(1, 1, 16, 16)
    radial, frequency = measures.spectrum(7 * wave)
    assert radial[0, cycles] == pytest.approx(1) and frequency[0] == pytest.approx(cycles / 16)


def test_noise_has_power_in_proportion_to_places():
    radial, _ = measures.spectrum(torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    _, bins = measures.frequencies(16, 16)
    assert radial.mean(axis=0) == pytest.approx(np.bincount(bins.ravel()) / 256, abs=0.004)
    assert radial.sum(axis=1) == pytest.approx(np.ones(400))


def test_edges_lie_where_the_image_changes():
    image = torch.zeros(1, 1, 6, 8)
    image[..., 4:] = 1
    actual = measures.edges(image)[0]
    assert (actual[:, [3, 4]] > 0).all() and (np.delete(actual, [3, 4], axis=1) == 0).all()


def test_rank_correlation_is_spearmans():
    from scipy import stats

    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, (4, 3, 7)), random.normal(size=(4, 3, 7))
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert measures.rank_correlation(first, second) == pytest.approx(expected)
    assert np.isnan(measures.rank_correlation(np.zeros((1, 3, 3)), np.arange(9.0).reshape(1, 3, 3))).all()


def test_sizes_count_exact_zeros():
    norm, zeros = measures.sizes(torch.tensor([[[[3.0, 4]]], [[[0.0, 1]]], [[[0.0, 0]]]]))
    assert norm.tolist() == [5, 1, 0] and zeros.tolist() == [0, 0.5, 1]


def test_a_stranger_is_of_another_class():
    labels = torch.tensor([0, 0, 0, 1, 2])
    assert (labels[measures.draw_donors(labels, 0)] != labels).all()
    with pytest.raises(ValueError, match="all of one class"):
        measures.draw_donors(torch.zeros(3), 0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_of_a_linear_model(objective):
    """The gradient of logit k is row k of the weights; of the loss it is (p - e_label) times the weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    weight = model[1].weight.detach()
    logits = model(images).detach()
    guess = logits.argmax(dim=1)
    of_loss = {
        name: (logits.softmax(1) - torch.eye(3)[which]) @ weight
        for name, which in (("loss_at_label", labels), ("loss_at_prediction", guess))
    }
    expected = of_loss | {"top_logit": weight[guess], "fixed_logit": weight[[0] * 6]}
    actual = batched.gradients(model, images, labels, OBJECTIVES[objective])
    assert torch.allclose(actual.flatten(1), expected[objective], atol=1e-6)


# ------------------------------------------------------------------ index maps


def test_capacity_of_the_authors_network():
    assert measures.totals((224, 224), 3, (64, 128, 256, 512, 512)) == {
        "image_bits": 1_204_224,
        "code_values": 25_088,
        "code_bits": 802_816,
        "choices": 1_530_368,
        "index_bits": 3_060_736,
    }


def segnet(unpool: str = "indices", seed: int = 0) -> models.SegNet:
    torch.manual_seed(seed)
    return freeze(models.build("segnet_small", widths=[4, 8], convs=[1, 1], unpool=unpool))


def test_capacity_is_what_the_encoder_leaves():
    code = segnet().encode(torch.rand(1, 1, 11, 9))
    rows = measures.capacity((11, 9), (4, 8))
    assert [row["choices"] for row in rows] == [actual.numel() for actual in code.indices]


def test_choices_and_places_are_each_others_inverse():
    code = segnet().encode(torch.rand(3, 1, 11, 9))
    for actual, size in zip(code.indices, code.sizes, strict=True):
        choices = measures.to_choices(actual, size)
        assert choices.min() == 0 and choices.max() == 3
        assert torch.equal(measures.to_indices(choices, size), actual)


def test_entropy_of_one_two_and_four_places():
    counts = torch.tensor([[1000, 500, 250], [0, 500, 250], [0, 0, 250], [0, 0, 250]])
    assert measures.entropy(counts).tolist() == pytest.approx([0, 1, 2], abs=3e-3)
    drawn_from = torch.randint(4, (20, 4000), generator=torch.Generator().manual_seed(0))
    counts = torch.stack([(drawn_from == choice).sum(dim=0) for choice in range(4)])
    plain = measures.entropy(100 * counts).mean()  # so many that nothing is corrected
    assert plain < 1.9 and measures.entropy(counts).mean() == pytest.approx(2, abs=0.02)


def test_own_indices_change_nothing_and_others_are_the_donors():
    purifier, images = segnet(), torch.rand(5, 1, 8, 8)
    donors = images.roll(1, 0)
    assert torch.equal(measures.exchange_indices(purifier, images, donors, "own", batch=2), purifier(images))
    code, given = purifier.encode(images), purifier.encode(donors)
    expected = purifier.decode(code._replace(indices=given.indices))
    assert torch.equal(measures.exchange_indices(purifier, images, donors, "other", batch=5), expected)


def test_the_mean_code_leaves_nothing_but_indices():
    images = torch.rand(5, 1, 8, 8)
    purifier = segnet("nearest")
    made = measures.exchange_indices(purifier, images, images, "mean code")
    assert torch.equal(made, made[:1].expand_as(made))  # without index maps all are one
    made = measures.exchange_indices(segnet(), images, images, "mean code")
    assert not torch.allclose(made[0], made[1])


def test_random_and_constant_indices_lie_in_their_windows():
    purifier, images = segnet(), torch.rand(4, 1, 8, 8)
    seen = []

    def decode(code):
        seen.append(code)
        return models.SegNet.decode(purifier, code)

    purifier.decode = decode
    for kind in ("random", "constant"):
        measures.exchange_indices(purifier, images, images, kind, seed=1)
    for code in seen:
        for actual, size in zip(code.indices, code.sizes, strict=True):
            assert torch.equal(measures.to_indices(measures.to_choices(actual, size), size), actual)
    random, constant = (measures.to_choices(code.indices[0], code.sizes[0]) for code in seen)
    assert set(random.unique().tolist()) == {0, 1, 2, 3} and (constant == 0).all()
    with pytest.raises(ValueError, match="kind='none': allowed are own"):
        measures.exchange_indices(purifier, images, images, "none")


# ------------------------------------------------------------------ rules


def rows_of(
    gap: float = -0.2, probe: float = -0.3, edges: float = 0.2, above: float = 0.1, zero: float = 0.0, same: float = 1.0
) -> dict:
    """Tables in which the S2SNet changes each measure by this much, each with an interval of 0.1."""

    def row(measure: str, value: float, **where):
        return {"objective": "loss_at_label", "measure": measure, "value": value, "n": 50, **where} | {
            "low": value - 0.05,
            "high": value + 0.05,
        }

    changes = {"class_gap": gap, "probe": probe, "edges": edges, "edges_above_stranger": above, "zeros": -0.1}
    values = {"all_zero": zero - 0.05, "float64": same + 0.05}
    return {
        "measures": [row(key, value, network=name) for key, value in values.items() for name in ("none", "s2snet")],
        "changes": [row(key, value, network="s2snet", since="none") for key, value in changes.items()],
    }


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, HOLDS),
        ({"gap": 0.2}, FAILS),
        ({"gap": 0.0}, UNDECIDED),
        ({"probe": 0.1}, FAILS),
        ({"edges": -0.1}, FAILS),
        ({"above": -0.1}, FAILS),  # follows edges, but not its own image's
        ({"zero": 0.5}, FAILS),
        ({"same": 0.2}, FAILS),
        ({"gap": math.nan}, UNDECIDED),
    ],
)
def test_stripped_holds_only_where_all_parts_do(given, verdict):
    claim = rules._whole(rules.Estimates(rows_of(**given)), "loss_at_label", "s2snet")
    assert claim.verdict == verdict and bool(claim.because) == (verdict != HOLDS)


# ------------------------------------------------------------------ the study

FEW = {"images": 18, "folds": 2, "shuffles": 1, "epochs": 1, "shown": 2}


def nets() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    classifier = models.build("small_cnn", channels=1, classes=3, widths=[4, 8], mean=[0.5], std=[0.5])
    purifiers = {"none": None, "autoencoder": segnet("nearest", 1), "s2snet": segnet("nearest", 2)}
    return {name: freeze(Defended(purifier, freeze(classifier))) for name, purifier in purifiers.items()}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished study with index maps, its claims, and its folder."""
    place = bench("gradients", tmp_path_factory.mktemp("study"), splits(), nets())
    claims = run(place, **FEW, unpoolings=["nearest", "indices"])
    place.finish(claims, {})
    return place, claims


def test_every_network_has_every_measure_of_every_objective(ran):
    place, _ = ran
    names = ["none", "autoencoder", "s2snet", "unpool_nearest", "unpool_indices"]
    assert [row["network"] for row in place.tables["networks"]] == names
    cells = [(row["objective"], row["network"], row["measure"]) for row in place.tables["measures"]]
    assert cells == [(o, name, measure) for o in OBJECTIVES for name in names for measure in MEASURES]
    itself = [r for r in place.tables["measures"] if (r["network"], r["measure"]) == ("none", "agreement")]
    assert all(row["value"] == pytest.approx(1) for row in itself)


def test_shares_of_an_exchange_are_whole_and_own_indices_are_the_accuracy(ran):
    tables = ran[0].tables
    shares = {(r["network"], r["indices"], r["says"]): r["value"] for r in tables["exchanges"]}
    for network in ("autoencoder", "s2snet"):
        for kind in measures.EXCHANGES:
            assert sum(shares[network, kind, says] for says in ("code", "donor", "neither")) == pytest.approx(1)
    accuracy = {(r["unpool"], r["network"], r["measure"]): r["value"] for r in tables["unpooling"]}
    assert shares["s2snet", "own", "code"] == accuracy["indices", "s2snet", "accuracy"]


def test_claims_have_names_of_their_own_and_intervals(ran):
    claims = ran[1]
    names = [claim.name for claim in claims]
    assert len(names) == len(set(names))
    assert {"class_cosine", "probe", "edges", "norms", "stripped_fixed_logit", "donor", "capacity"} <= set(names)
    assert all("n = " in claim.found for claim in claims if claim.name != "capacity")  # arithmetic


def test_figures_are_drawn_from_the_tables(ran):
    from matplotlib.figure import Figure

    figures = drawing.figures(ran[0].tables)
    assert len({figure.name for figure in figures}) == 7
    for figure in figures:
        figure.draw(Figure().add_subplot())


def test_a_second_run_makes_nothing_again(ran, tmp_path, monkeypatch):
    place, claims = ran
    again = bench("gradients", place.folder, splits(), nets())
    monkeypatch.setattr(measures, "probe", None)  # what every part begins with
    monkeypatch.setattr(measures, "totals", None)
    assert run(again, **FEW, unpoolings=["nearest", "indices"]) == claims
    assert again.tables == place.tables


class Steps(nn.Module):
    """A purifier that rounds: its gradient is zero everywhere, and nothing was stripped of anything."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (4 * images).round() / 4


def test_vanished_gradients_are_told_from_stripped_ones(tmp_path):
    masked = nets()
    masked["s2snet"] = freeze(Defended(Steps(), masked["none"].classifier))
    place = bench("gradients", tmp_path, splits(), masked)
    claims = {claim.name: claim for claim in run(place, **FEW, unpoolings=[])}
    assert claims["norms"].verdict == FAILS and "gradient of zeros 100.0 %" in claims["norms"].found
    for objective in OBJECTIVES:
        assert claims[f"stripped_{objective}"].verdict == FAILS
    assert claims["class_cosine"].verdict == UNDECIDED  # no directions, no cosine


def test_without_weights_the_trained_ones_stand_for_them(ran, tmp_path):
    only = {"none": nets()["none"]}
    place = bench("gradients", tmp_path, splits(), only)
    with pytest.raises(ValueError, match="needs the defence autoencoder"):
        run(place, **FEW, unpoolings=[])
    run(place, **FEW, unpoolings=["nearest"], train_images=30)
    titles = {row["network"]: row["title"] for row in place.tables["networks"]}
    assert list(titles) == ["none", "autoencoder", "s2snet"] and "nearest, trained here" in titles["s2snet"]
    assert "exchanges" not in place.tables


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"images": 1}, "study.gradients.images=1: at least 2"),
        ({"unpoolings": ["index"]}, r"study.gradients.unpoolings=index.*indices"),
    ],
)
def test_bad_options_are_one_line(tmp_path, option, line):
    with pytest.raises(ValueError, match=line):
        run(bench("gradients", tmp_path, splits(), nets()), **{**FEW, **option})
