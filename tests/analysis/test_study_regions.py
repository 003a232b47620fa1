"""study=regions: maps and attackers in closed form, controls, and a resumable run on tiny networks."""

import dataclasses
import inspect
import json

import pytest
import torch
from benches import bench, splits
from omegaconf import OmegaConf
from torch import Tensor, nn

from s2snet.analysis.intervals import Estimate
from s2snet.analysis.regions import attackers, figures, inputs, measures
from s2snet.analysis.regions.claims import exactness
from s2snet.analysis.regions.measures import Masks
from s2snet.analysis.regions.study import run
from s2snet.attacks import pgd
from s2snet.cli.conf_dir import conf_dir
from s2snet.models import Defended, build
from s2snet.report.studies.sections import section
from s2snet.store import weights

TINY = {
    "images": 8,
    "train_images": 9,
    "path_steps": 2,
    "attacks": ["ddn"],
    "q": 0.25,
    "sweep": [0.5],
    "starts": 1,
    "steps": 3,
    "losses": ["cross_entropy"],
    "restarts": 1,
    "restart_steps": 3,
    "draws": 2,
    "pictures": 2,
}


class Linear(nn.Module):
    def __init__(self, channels: int = 2, size: int = 6, classes: int = 3):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, channels, size, size, generator=draw), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", images, self.weight)


def pictures(count: int = 4, channels: int = 2, size: int = 6) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def trained() -> nn.Module:
    """A small network that knows the squares of benches.py."""
    torch.manual_seed(0)
    module = build("small_cnn", classes=3, widths=[4, 8])
    images, labels, _ = zip(*splits().train, strict=True)
    images, labels = torch.stack(images), torch.tensor(labels)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimiser.step()
    return module.eval().requires_grad_(False)


def test_integrated_gradients_of_a_linear_model_are_its_terms_and_complete():
    model, images, classes = Linear(), pictures(), torch.tensor([0, 1, 2, 0])
    actual = measures.integrated_gradients(model, images, classes, 1)
    torch.testing.assert_close(actual, model.weight[classes] * images)


def test_integrated_gradients_sum_to_the_logits_rise_from_black():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Softplus(), nn.Flatten(), nn.Linear(80, 3)).requires_grad_(False)
    images, classes = pictures(), torch.tensor([0, 1, 2, 0])
    rise = (model(images) - model(torch.zeros_like(images))).gather(1, classes[:, None]).squeeze(1)
    actual = measures.integrated_gradients(model, images, classes, 64).sum(dim=(1, 2, 3))
    torch.testing.assert_close(actual, rise, rtol=1e-3, atol=1e-4)


def test_occlusion_of_a_linear_model_is_its_terms():
    model, images, classes = Linear(), pictures(), torch.tensor([0, 1, 2, 0])
    terms = (model.weight[classes] * images).sum(dim=1)
    black = torch.zeros(2, 1, 1)
    torch.testing.assert_close(measures.occlusion(model, images, classes, 1, black), terms, rtol=1e-3, atol=1e-5)
    whole = measures.occlusion(model, images, classes, 6, black)
    torch.testing.assert_close(whole, terms.sum(dim=(1, 2), keepdim=True).expand_as(terms), rtol=1e-3, atol=1e-5)


def test_parts_cover_each_image_once():
    parts = measures.partition(torch.rand(5, 8, 8), torch.rand(5, 8, 8), 0.25)
    assert list(parts) == list(measures.PARTS)
    assert (torch.stack(list(parts.values())).sum(dim=0) == 1).all()
    assert ((parts["B"] | parts["V"]).flatten(1).sum(dim=1) == 16).all()


def test_likeness_knows_equal_opposite_and_unrelated_maps():
    maps = torch.rand(40, 16, 16, generator=torch.Generator().manual_seed(99))
    same = measures.similarity(maps, maps, [0.25])
    assert (same["0.25"] == 1).all() and torch.allclose(same["rank"], torch.ones(40).double())
    opposite = measures.similarity(maps, -maps, [0.25])
    assert (opposite["0.25"] == 0).all() and torch.allclose(opposite["rank"], -torch.ones(40).double())
    chance = 0.25**2 / (2 * 0.25 - 0.25**2)  # of two masks of a quarter each
    for control in ("random 0.25", "others 0.25"):
        assert same[control].mean() == pytest.approx(chance, abs=0.02)
    alike = measures.similarity(maps[:1].expand(5, -1, -1), maps[:1].expand(5, -1, -1), [0.25])
    assert (alike["others 0.25"] == 1).all()  # maps that are alike everywhere: the control sees it


def test_controls_keep_the_area_and_the_shape():
    masks = torch.rand(6, 9, 11) < 0.3
    areas = masks.flatten(1).sum(dim=1)
    for control in (measures.random_like, measures.shifted_like):
        moved = control(masks, 0)
        assert torch.equal(moved.flatten(1).sum(dim=1), areas)
        assert not torch.equal(moved, masks) and not torch.equal(control(masks, 1), moved)
        assert torch.equal(control(masks, 0), moved)
    edges = (masks != masks.roll(1, 2)).flatten(1).sum(dim=1)
    moved = measures.shifted_like(masks, 0)
    assert torch.equal((moved != moved.roll(1, 2)).flatten(1).sum(dim=1), edges)


def test_the_parts_share_the_energy():
    delta, parts = torch.randn(3, 2, 8, 8), measures.partition(torch.rand(3, 8, 8), torch.rand(3, 8, 8), 0.25)
    shares = torch.stack([measures.energy(delta, mask) for mask in parts.values()])
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(3).double())
    assert (measures.energy(torch.zeros(3, 2, 8, 8), parts["V"]) == 0).all()


def knowledge(classifier: nn.Module, **changed) -> Masks:
    draw = torch.Generator().manual_seed(4)
    maps = [torch.rand(9, 8, 8, generator=draw) for _ in range(2)]
    options = {"sigma": 1.0, "starts": 1, "eps": 0.03, "seed": 0}
    given = {"fill": "inpaint", "width": 2.0, "options": options} | changed
    return Masks(classifier, *maps, torch.arange(9) % 3, torch.full((1, 1, 1), 0.4), **given)


@pytest.mark.parametrize("mode", ["static", "per_class", "per_input"])
def test_the_tables_masks_are_the_purifiers(mode):
    """The parts that are measured are those that the saved purifier removes."""
    classifier = trained()
    known, images = knowledge(classifier), bench("regions", None, splits()).images(8).images
    if mode == "per_input":
        purifier = known.per_input(0.25)
        maps = tuple(actual[:, 0] for actual in purifier.maps(images))
    else:
        purifier, maps = known.static(known.shared(mode, "V", 0.25)), ()
    holes = known.holes(mode, "V", 0.25, images, maps, 0)
    assert holes.any() and torch.equal(purifier.hole(images)[:, 0].bool(), holes)


@pytest.mark.parametrize("attacker", attackers.ATTACKERS)
def test_attackers_stay_in_the_ball_and_see_the_real_answer_first(attacker):
    classifier = trained()
    defended = Defended(knowledge(classifier).per_input(0.25), classifier)
    sample = bench("regions", None, splits()).images(8)
    sees = attackers.ATTACKERS[attacker].build(defended, sample.images, 0.1)
    assert torch.equal(sees(sample.images), defended(sample.images))
    how = {
        "eps": 0.5,
        "steps": 4,
        "losses": ["cross_entropy"],
        "restarts": 1,
        "restart_steps": 3,
        "temperature": 0.1,
        "seed": 0,
    }
    crafted = attackers.craft(attacker, defended, *sample, **how)
    delta = crafted - sample.images
    assert 0 < delta.flatten(1).norm(dim=1).max() <= 0.5 + 1e-6
    if attacker == "confined":
        assert (delta * defended.purifier.hole(sample.images) == 0).all()


def test_an_attacker_who_sees_the_mask_fixed_sees_what_pgd_on_the_rest_sees():
    """Of a static mask the fixed, the recomputed and the confined attacker differentiate the same function."""
    classifier = trained()
    known = knowledge(classifier)
    defended = Defended(known.static(known.shared("static", "V", 0.25)), classifier)
    sample = bench("regions", None, splits()).images(6)
    actual = [
        pgd(
            attackers.ATTACKERS[name].build(defended, sample.images, 0.1),
            sample.images, sample.labels, eps=0.5, norm="l2", steps=3, random_start=False,
        )
        for name in ("recomputed", "fixed", "confined")
    ]  # fmt: skip
    assert torch.equal(actual[0], actual[1]) and torch.equal(actual[0], actual[2])


def test_attackers_that_say_nothing_of_a_fixed_mask_are_left_out():
    classifier = trained()
    known = knowledge(classifier)
    static = Defended(known.static(known.shared("static", "V", 0.25)), classifier)
    assert attackers.applicable(Defended(None, classifier)) == ["recomputed"]
    assert attackers.applicable(static) == ["recomputed", "bpda", "confined"]
    assert attackers.applicable(Defended(known.per_input(0.25), classifier)) == list(attackers.ATTACKERS)


def test_training_images_are_of_all_classes_where_they_lie_class_by_class(tmp_path):
    data = splits()
    train = data.train.only(data.train.labels.argsort().tolist())
    place = bench("regions", tmp_path, dataclasses.replace(data, train=train), {})
    assert inputs._spread(place, 6).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(inputs._spread(place, 1000).labels) == 60


def test_images_that_fell_to_other_attackers_alone_decide_on_exact_gradients():
    assert exactness(Estimate(0, 0, 0, 9)) == "holds"
    assert exactness(Estimate(0.1, 0, 0.2, 9)) == "undecided"
    assert exactness(Estimate(0.1, 0.05, 0.2, 9)) == "fails"


def test_the_file_has_the_studys_options_and_defaults():
    given = OmegaConf.to_container(OmegaConf.load(conf_dir() / "study" / "regions.yaml"))
    assert given.pop("name") == "regions"
    parameters = inspect.signature(run).parameters
    plain = {key: value.default for key, value in parameters.items() if key != "bench"}
    assert given == {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def test_the_study_on_a_tiny_network(tmp_path):
    classifier = trained()
    place = bench("regions", tmp_path, splits(), {"none": classifier})
    claims = run(place, **TINY)
    place.finish(claims, {"command": "x", "options": TINY, "defences": [], "notes": []})
    assert len({claim.name for claim in claims}) == len(claims) == 16
    assert all("n = " in claim.found for claim in claims)
    tables = {table: len(rows) for table, rows in place.tables.items()}
    assert set(tables) == {"overlap", "correlation", "energy", "neutralising", "adaptive"}
    page = section(tmp_path)
    assert len(page["figures"]) == len(figures.figures({})) and len(page["grids"]) == 2
    worst = {
        (row["mode"], row["part"], row["q"]): row["value"]
        for row in place.tables["adaptive"]
        if row["attacker"] == "worst_case"
    }
    for row in place.tables["adaptive"]:
        assert worst[row["mode"], row["part"], row["q"]] <= row["value"]
    for name, shape in (("neutralised", (1, 1, 8, 8)), ("neutralised_per_input", None)):
        purifier = weights.load(tmp_path / f"{name}.safetensors")
        assert purifier.header["classifier"] == weights.fingerprint(classifier)
        assert shape is None or purifier.masks.shape == shape
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    first = json.loads((tmp_path / "study.json").read_text())["claims"]
    again = bench("regions", tmp_path, splits(), {"none": classifier})
    again.finish(run(again, **TINY), {"command": "x"})
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()} == parts
    assert json.loads((tmp_path / "study.json").read_text())["claims"] == first


@pytest.mark.parametrize(
    "options, line",
    [
        ({"importance": "gradient"}, r"study.regions.importance=gradient"),
        ({"attacks": ["pgd"]}, r"study.regions.attacks=pgd"),
        ({"q": 0.7}, r"study.regions.q=0.7: a share of the pixels, above 0 and at most 0.5"),
        ({"draws": 0}, r"study.regions.draws=0: at least 1"),
    ],
)
def test_bad_options_are_one_line(options, line, tmp_path):
    with pytest.raises(ValueError, match=line) as error:
        run(bench("regions", tmp_path, splits(), {"none": trained()}), **options)
    assert "\n" not in str(error.value)


def test_a_classifier_that_a_file_could_not_rebuild_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"so s2snet.models.build must have built it"):
        run(bench("regions", tmp_path, splits(), {"none": nn.Flatten()}))
