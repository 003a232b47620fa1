"""Routes and knowledge: what is differentiated, who judges, and who may leave early."""

from dataclasses import replace

import jobs
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.config.evaluation import Threat
from s2snet.config.runtime import Trainer
from s2snet.evaluation.cells import Cell
from s2snet.evaluation.plan import Inputs, cells_of, deterministic
from s2snet.models import Defended, build
from s2snet.store import weights
from s2snet.threats import ROUTES, SURROGATES, THREATS, Facts

DATA = {"name": "digits", "split": "test", "fingerprint": "f", "channels": 1}
FIT = {"train": "t", "version": 1}
OPTIONS = {"temperature": 0.3, "fit_steps": 2, "smoothing": 0.05, "draws": 4}
THREAT = {
    "gray_box": Threat("gray_box", [], **OPTIONS),
    "white_box": Threat("white_box", ["exact", "identity"], **OPTIONS),
}


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("small_cnn", widths=[4, 8]).eval()


def defended(seed: int = 0, of: int = 0, unpool: str = "nearest") -> Defended:
    torch.manual_seed(seed)
    return Defended(build("segnet_small", widths=[4, 8], convs=[1, 1], unpool=unpool), classifier(of)).eval()


def defences() -> dict[str, Defended]:
    return {"none": Defended(None, classifier()), "ae": defended(1), "adversarial": Defended(None, classifier(5))}


class Noisy(nn.Module):
    """A purifier that gives random answers."""

    def forward(self, images):
        return images + 0.1 * torch.randn_like(images)


PROBE = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(3))
FACTS = Facts(weights.fingerprint, lambda module: not deterministic(module, PROBE))


def planned(
    modules=None,
    attacks=None,
    budgets=None,
    seeds=(0,),
    chunk=10,
    data=DATA,
    threats=THREAT,
    fit=FIT,
    copies=None,
    precision="32-true",
) -> list[Cell]:
    modules = modules or defences()
    job = jobs.job(
        defences=[jobs.defence(name, module.purifier, module.classifier) for name, module in modules.items()],
        attacks=attacks or {"pgd": {"steps": 3}},
        threats=threats,
        budgets=budgets or {"linf": [0.1]},
        seeds=list(seeds),
        chunk=chunk,
        trainer=Trainer(precision=precision),
    )
    for defence in job.defences:
        defence.module = modules[defence.name]
    return cells_of(job, Inputs(data, copies or modules, FACTS, fit))


def keys(**changed) -> set[str]:
    return {cell.key for cell in planned(**changed) if cell.source is not None}


def source_by(route: str, module: Defended, **changed) -> nn.Module:
    """The source that the route makes of the module; a surrogate as it comes, from seed 1."""
    torch.manual_seed(1)
    surrogate = SURROGATES[ROUTES[route].surrogate](1) if ROUTES[route].surrogate else None
    return ROUTES[route].build(module, surrogate, **{key: (OPTIONS | changed)[key] for key in ROUTES[route].options})


def gradient(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    return torch.autograd.grad(functional.cross_entropy(module(x), labels, reduction="sum"), x)[0]


LABELS = torch.tensor([1, 2, 3])


@pytest.fixture
def images():
    return torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("unpool", ["nearest", "indices"])
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_what_the_defended_answers(route, unpool, images):
    module = defended(unpool=unpool)
    source = source_by(route, module)
    for x in (images, images.clone().requires_grad_()):
        assert torch.equal(source(x), module(x))
    with torch.no_grad():
        assert torch.equal(source(images), module(images))


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_an_image_its_own_gradient_again_and_again(route, images):
    source = source_by(route, defended(unpool="indices"))
    together = gradient(source, images, LABELS)
    assert together.isfinite().all()
    assert together.flatten(1).norm(dim=1).min() > 0
    assert torch.equal(gradient(source, images, LABELS), together)
    alone = torch.cat([gradient(source, images[k : k + 1], LABELS[k : k + 1]) for k in (2, 0)])
    torch.testing.assert_close(alone, together[[2, 0]], rtol=1e-4, atol=1e-7)


def test_identity_is_the_classifiers_gradient_at_the_purified_image(images):
    module = defended()
    at = gradient(module.classifier, module.purifier(images).detach(), LABELS)
    assert torch.equal(gradient(source_by("identity", module), images, LABELS), at)
    assert not torch.allclose(gradient(module, images, LABELS), at)


@pytest.mark.parametrize("route", ["learned", "affine"])
def test_a_fitted_route_is_the_surrogates_jacobian_at_the_image(route, images):
    """J(surrogate, x)^T times the classifier's gradient at the purified image."""
    module = defended()
    source = source_by(route, module)
    at = gradient(module.classifier, module.purifier(images).detach(), LABELS)
    (expected,) = torch.autograd.functional.vjp(source.stand_in, images, at)[1:]
    torch.testing.assert_close(gradient(source, images, LABELS), expected, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(expected, at, rtol=0.1)


def test_soft_is_exact_and_what_a_moving_index_does(images):
    module = defended(unpool="indices")
    exact = gradient(module, images, LABELS)
    warm, hot = (
        gradient(source_by("soft", module, temperature=temperature), images, LABELS) for temperature in (0.3, 1e6)
    )
    assert (warm - exact).norm() > 0.01 * exact.norm()
    torch.testing.assert_close(hot, exact, rtol=1e-3, atol=1e-8)  # every place shares alike, whatever the image


def test_soft_is_offered_where_indices_lead_the_way_up():
    assert ROUTES["soft"].offered(defended(unpool="indices"), False)
    for other in (defended(), Defended(None, classifier()), Defended(Noisy(), classifier())):
        assert not ROUTES["soft"].offered(other, False)


def test_smoothed_is_the_mean_of_exact_gradients_at_images_shifted_to_and_fro(images):
    """Taken from what the module was shown, not from the route's own noise."""
    module, shown = defended(unpool="indices"), []
    source = source_by("smoothed", module, draws=6, smoothing=0.02)
    assert source.draws_per_backward == 6
    forward = module.forward
    module.forward = lambda x: [shown.append(x.detach().clone()), forward(x)][1]
    found = gradient(source, images, LABELS)
    del module.forward
    at_the_image, *near = shown
    assert torch.equal(at_the_image, images)
    shifts = torch.stack([x - images for x in near])
    assert shifts.shape == (6, *images.shape)
    torch.testing.assert_close(shifts.sum(dim=0), torch.zeros_like(images), rtol=0, atol=1e-6)  # in pairs
    assert shifts.std() == pytest.approx(0.02, rel=0.05)
    assert shifts[0].std() > 0.015
    torch.testing.assert_close(shifts, shifts[:, :1].expand_as(shifts), rtol=0, atol=1e-6)  # alike for all images
    x = images.clone().requires_grad_()
    logits = module(x)
    cotangent = torch.autograd.grad(functional.cross_entropy(logits, LABELS, reduction="sum"), logits)[0]
    means = torch.stack([torch.autograd.functional.vjp(module, x, cotangent)[1] for x in near]).mean(dim=0)
    torch.testing.assert_close(found, means, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(found, gradient(module, images, LABELS), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("asked, made", [(1, 2), (2, 2), (3, 4), (8, 8)])
def test_smoothed_takes_its_draws_in_pairs_and_repeats_them(asked, made, images):
    sources = [source_by("smoothed", defended(), draws=asked) for _ in range(2)]
    assert sources[0].draws_per_backward == made
    torch.manual_seed(123)
    first = gradient(sources[0], images, LABELS)
    torch.manual_seed(456)
    assert torch.equal(gradient(sources[1], images, LABELS), first)


def test_exact_is_the_gradient_by_differences(images):
    module = defended().double()
    x = images.double().requires_grad_()
    (slope,) = torch.autograd.grad(source_by("exact", module)(x)[:, 0].sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        step = 1e-6
        rise = (module(x + step * direction) - module(x - step * direction))[:, 0].sum() / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), rise, rtol=1e-4, atol=1e-8)


def test_gray_box_knows_the_bare_classifier_and_all_judge(images):
    modules = defences()
    (attempt,) = THREATS["gray_box"](modules, THREAT["gray_box"], FACTS)
    assert torch.equal(attempt.defended(modules)(images), modules["ae"].classifier(images))
    assert attempt.source_name == "none"
    assert attempt.judges == ("none", "ae", "adversarial")
    assert not attempt.sole_judge


def test_gray_box_has_a_source_for_each_classifier_that_is_defended():
    modules = {"none": Defended(None, classifier()), "ae": defended(1), "other": defended(1, of=7)}
    found = THREATS["gray_box"](modules, THREAT["gray_box"], FACTS)
    assert sorted(attempt.judges for attempt in found) == [("none", "ae"), ("none", "other")]


def test_white_box_is_each_defence_by_each_route_before_itself():
    found = THREATS["white_box"](defences(), THREAT["white_box"], FACTS)
    assert [(attempt.source_name, attempt.route) for attempt in found] == [
        ("none", "exact"), ("ae", "exact"), ("ae", "identity"), ("adversarial", "exact")
    ]  # fmt: skip
    assert all(attempt.judges == (attempt.source_name,) and attempt.sole_judge for attempt in found)


def test_white_box_takes_the_routes_that_say_something():
    modules = {
        "none": Defended(None, classifier()),
        "nearest": defended(1),
        "indices": defended(1, unpool="indices"),
        "noisy": Defended(Noisy(), classifier()),
        "dropout": Defended(None, nn.Sequential(classifier(), Noisy())),
    }
    everything = replace(THREAT["white_box"], routes=list(ROUTES))
    found = THREATS["white_box"](modules, everything, FACTS)
    routes = {name: [attempt.route for attempt in found if attempt.of == name] for name in modules}
    assert routes == {
        "none": ["exact"],
        "nearest": ["exact", "identity", "learned", "affine", "smoothed"],
        "indices": ["exact", "identity", "soft", "learned", "affine", "smoothed"],
        "noisy": ["exact", "identity", "learned", "affine", "smoothed", "eot"],
        "dropout": ["exact", "eot"],
    }
    options = {attempt.route: attempt.options for attempt in found}
    assert options["exact"] == options["identity"] == {}
    assert options["soft"] == {"temperature": 0.3}
    assert options["learned"] == options["affine"] == {"fit_steps": 2}
    assert options["smoothed"] == {"smoothing": 0.05, "draws": 4}
    assert options["eot"] == {"draws": 4}


def test_eot_is_compulsory_before_a_random_defence_and_averages():
    modules = {"ae": defended(1), "noisy": Defended(Noisy(), classifier())}
    attacks = {"pgd": {"name": "pgd", "steps": 3}, "more": {"name": "pgd", "steps": 3, "draws": 6}}
    found = [cell for cell in planned(modules, attacks) if cell.source is not None]
    draws = {
        (cell.attack, cell.views[0][1], cell.route): cell.preimage["options"].get("draws")
        for cell in found
        if "white_box" in [view[0] for view in cell.views]
    }
    assert draws["pgd", "noisy", "eot"] == 4
    assert draws["more", "noisy", "eot"] == 6
    assert draws["pgd", "noisy", "exact"] is draws["pgd", "ae", "exact"] is None
    assert not [key for key in draws if key[1:] == ("ae", "eot")]


def test_without_training_images_the_fitted_routes_are_left_out():
    threats = {"white_box": replace(THREAT["white_box"], routes=["exact", "learned", "affine"])}
    assert {cell.route for cell in planned(threats=threats) if cell.source} == {"exact", "learned", "affine"}
    assert {cell.route for cell in planned(threats=threats, fit=None) if cell.source} == {"exact"}


def transfer(sources=None) -> dict:
    return {"transfer": Threat("transfer", [], **OPTIONS, sources=sources)}


def test_transfer_is_each_source_before_all_others():
    modules = defences()
    found = THREATS["transfer"](modules, transfer()["transfer"], FACTS)
    assert {attempt.source_name: attempt.judges for attempt in found} == {
        "none": ("ae", "adversarial"),
        "ae": ("none", "adversarial"),
        "adversarial": ("none", "ae"),
    }
    assert not any(attempt.sole_judge for attempt in found)
    assert {attempt.route for attempt in found} == {"exact"}
    (only,) = THREATS["transfer"](modules, transfer(["ae"])["transfer"], FACTS)
    assert only.defended(modules) is modules["ae"]
    assert not THREATS["transfer"]({"none": modules["none"]}, transfer()["transfer"], FACTS)
    with pytest.raises(ValueError, match=r"^threat.transfer.sources=s2s: allowed are the defences none, ae, adv"):
        THREATS["transfer"](modules, transfer(["s2s"])["transfer"], FACTS)


def test_transfer_shares_what_the_other_threats_craft():
    alone = {cell.key for cell in planned(threats=transfer()) if cell.source}
    found = [cell for cell in planned(threats=THREAT | transfer()) if cell.source]
    threats = {tuple(dict.fromkeys(view[0] for view in cell.views)) for cell in found}
    # of ae by exact gradients all others judge too, so nobody leaves; by the identity only ae itself does
    assert threats == {("gray_box", "white_box", "transfer"), ("white_box", "transfer"), ("white_box",)}
    assert alone == {cell.key for cell in found if "transfer" in [view[0] for view in cell.views]}
    early = {(cell.views[0][1], cell.route): cell.preimage["leave_early"] for cell in found}
    assert early == {
        ("none", "exact"): False, ("ae", "exact"): False, ("ae", "identity"): True, ("adversarial", "exact"): False
    }  # fmt: skip
    for cell in found:
        assert sorted(cell.judges) == (["ae"] if cell.route == "identity" else ["adversarial", "ae", "none"])


def test_query_is_for_attacks_that_ask_for_answers_only(monkeypatch):
    from s2snet.attacks import ATTACKS, pgd

    def asking(*words, **options):
        return pgd(*words, **options)

    asking.__signature__ = __import__("inspect").signature(pgd)
    asking.version, asking.norms, asking.minimal, asking.answers_only = 1, ("linf",), False, True
    monkeypatch.setitem(ATTACKS, "asking", asking)
    threats = THREAT | {"query": Threat("query", [])}
    found = [cell for cell in planned(attacks={"pgd": {}, "asking": {}}, threats=threats) if cell.source]
    asked = {cell.views[0][1]: cell for cell in found if cell.attack == "asking"}
    assert set(asked) == {"none", "ae", "adversarial"}
    for name, cell in asked.items():
        assert cell.views == [("query", name, (name,))]
        assert cell.preimage["leave_early"]
    assert "query" not in {view[0] for cell in found if cell.attack == "pgd" for view in cell.views}


def test_leaving_early_is_for_sole_deterministic_judges_only():
    random = Defended(Noisy(), classifier(9))
    found = planned({**defences(), "random": random})
    early = {
        (threat, source, cell.route): cell.preimage["leave_early"]
        for cell in found
        if cell.source is not None
        for threat, source, _ in cell.views
    }
    assert early == {
        ("gray_box", "none", "exact"): False,
        ("white_box", "none", "exact"): False,  # the same crafted images as the gray box's, which others judge
        ("white_box", "ae", "exact"): True,
        ("white_box", "ae", "identity"): True,
        ("white_box", "adversarial", "exact"): True,
        ("white_box", "random", "exact"): False,
        ("white_box", "random", "identity"): False,
        ("white_box", "random", "eot"): False,
    }


def test_gray_and_white_box_share_what_they_craft_of_the_bare_classifier():
    shared = [cell for cell in planned() if {view[0] for view in cell.views} == {"gray_box", "white_box"}]
    assert len(shared) == 1
    assert shared[0].judges == ["none", "ae", "adversarial"]


CHANGES = {
    "seed": {"seeds": [1]},
    "budget": {"budgets": {"linf": [0.2]}},
    "norm": {"budgets": {"l2": [0.1]}},
    "attack": {"attacks": {"bim": {"steps": 3}}},
    "option": {"attacks": {"pgd": {"steps": 4}}},
    "chunk": {"chunk": 11},
    "data": {"data": {**DATA, "fingerprint": "g"}},
    "precision": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_the_numbers_changes_the_key(change):
    assert keys() == keys()
    assert not keys() & keys(**change)


def test_one_weight_changes_the_keys_of_its_sources_only():
    changed = defences()
    with torch.no_grad():
        changed["ae"].purifier.decoder.conv_final.bias += 1e-6
    of_ae = {cell.key for cell in planned() if any(source == "ae" for _, source, _ in cell.views)}
    assert keys() - keys(modules=changed) == of_ae


ROUTE_CHANGES = {
    "temperature": ("soft", {"temperature": 0.5}, FIT),
    "smoothing": ("smoothed", {"smoothing": 0.1}, FIT),
    "draws": ("smoothed", {"draws": 6}, FIT),
    "fit steps": ("learned", {"fit_steps": 3}, FIT),
    "training images": ("affine", {}, FIT | {"train": "u"}),
    "fit version": ("affine", {}, FIT | {"version": 2}),
}


@pytest.mark.parametrize("route, option, fit", ROUTE_CHANGES.values(), ids=ROUTE_CHANGES)
def test_what_a_route_is_made_of_is_in_its_key_and_in_no_other(route, option, fit):
    modules = {"ae": defended(1, unpool="indices")}

    def by(option, fit):
        threats = {"white_box": replace(THREAT["white_box"], routes=["exact", "identity", route], **option)}
        return {cell.route: cell.key for cell in planned(modules, threats=threats, fit=fit) if cell.source}

    before, after = by({}, FIT), by(option, fit)
    assert {name for name in before if before[name] != after[name]} == {route}


def test_the_seed_is_in_the_key_where_random_numbers_are_drawn():
    attacks = {
        "pgd": {}, "still": {"name": "pgd", "random_start": False}, "bim": {}, "fgsm": {"targets": "next"},
        "aimed": {"name": "bim", "targets": "random"},
    }  # fmt: skip
    found = [cell for cell in planned(attacks=attacks, seeds=[0, 1]) if cell.source]
    seeds = {label: sorted({cell.seed for cell in found if cell.attack == label}, key=str) for label in attacks}
    assert seeds == {"pgd": [0, 1], "still": [None], "bim": [None], "fgsm": [None], "aimed": [0, 1]}
    assert len({cell.key for cell in found}) == len(found)
    assert [cell.seed for cell in planned(attacks=attacks, seeds=[0, 1]) if cell.clean] == [None]
    noisy = planned({"noisy": Defended(Noisy(), classifier())}, attacks, seeds=[0, 1])
    assert {cell.seed for cell in noisy} == {0, 1}  # a judge that draws needs every seed, without an attack too


def test_a_minimal_attack_runs_once_for_each_norm_whatever_the_radii():
    for radii in ([], [0.5], [0.5, 1.0]):
        found = planned(attacks={"deepfool": {}}, budgets={"l2": radii, "l1": [2.0]})
        assert {(cell.norm, cell.budget) for cell in found if cell.source} == {("l2", float("inf"))}
    assert keys(attacks={"ddn": {}}, budgets={"l2": []}) == keys(attacks={"ddn": {}}, budgets={"l2": [0.5]})


def test_a_copy_that_differs_is_in_the_key_and_is_what_is_attacked():
    copies = {name: Defended(module.purifier, module.classifier) for name, module in defences().items()}
    modules = {name: Defended(copy.purifier, copy.classifier) for name, copy in copies.items()}
    same = planned(modules, copies=copies)
    assert not any(cell.preimage["fast"] for cell in same if cell.source)
    copies["ae"] = Defended(defended(1).purifier, copies["ae"].classifier)
    other = planned(modules, copies=copies)
    assert {view[1] for cell in other if cell.source and cell.preimage["fast"] for view in cell.views} == {"ae"}
    for cell in other:
        if cell.source and cell.route == "exact" and cell.views[0][1] == "ae":
            assert cell.fast is copies["ae"]
            assert cell.source is modules["ae"]


def test_an_attacks_version_is_in_the_key(monkeypatch):
    from s2snet.attacks import pgd

    before = keys()
    monkeypatch.setattr(pgd, "version", pgd.version + 1)
    assert not before & keys()


def test_the_label_of_an_attack_is_not_in_the_key():
    assert keys(attacks={"mine": {"name": "pgd", "steps": 3}}) == keys()


@pytest.mark.parametrize(
    "attack, line",
    [
        ({"name": "pdg"}, "attack.mine.name=pdg (did you mean 'pgd'?): allowed are fgsm, "),
        (
            {"name": "pgd", "targets": "nxt"},
            "attack.mine.targets=nxt (did you mean 'next'?): allowed are next, random, least_likely",
        ),
        ({"name": "cw"}, "attack.mine: supports l2, and budgets has none of them; add budgets.l2=[]"),
        (
            {"name": "pgd", "stepz": 3},
            "attack.mine.stepz (did you mean 'steps'?): pgd has no such option; allowed are steps, ",
        ),
        ({"name": "pgd", "eps": 0.3}, "attack.mine.eps: radii are given as budgets, such as budgets.linf=[8/255]"),
        ({"name": "pgd", "loss": "ce"}, "attack.mine.loss=ce: allowed are cross_entropy, "),
        ({"name": "pgd", "steps": 0}, "attack.mine: invalid options of pgd: steps=0: at least 1"),
        ({"name": "pgd", "steps": "many"}, "attack.mine: invalid options of pgd: "),
        ({"name": "pgd", "sparsity": 2.0}, "attack.mine: invalid options of pgd: sparsity=2.0"),
    ],
)
def test_bad_attacks_are_one_line_before_anything_runs(attack, line):
    with pytest.raises(ValueError) as error:
        planned(attacks={"mine": attack})
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_unknown_threats_routes_and_norms_that_an_attack_does_not_know():
    with pytest.raises(
        ValueError, match=r"threat.mine.name=grey_box \(did you mean 'gray_box'\?\): allowed are gray_box, white_box"
    ):
        planned(threats={"mine": Threat("grey_box", [])})
    with pytest.raises(
        ValueError, match=r"threat.mine.routes=exat \(did you mean 'exact'\?\): allowed are exact, identity"
    ):
        planned(threats={"mine": replace(THREAT["white_box"], routes=["exat"])})
    with pytest.raises(ValueError, match=r"attack.fgsm: supports linf, l2, and budgets has none of them; add budg"):
        planned(attacks={"fgsm": {}}, budgets={"l1": [1.0], "l2": []})
    assert {cell.norm for cell in planned(attacks={"pgd": {}, "fgsm": {}}, budgets={"l1": [1.0], "linf": [0.1]})
            if cell.attack == "fgsm"} == {"linf"}  # fmt: skip
