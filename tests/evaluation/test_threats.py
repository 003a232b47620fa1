"""Routes and knowledge: what is differentiated, who judges, and who may leave early."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from s2snet import weights
from s2snet.evaluation import cells
from s2snet.evaluation.engine import deterministic
from s2snet.models import Defended, build
from s2snet.threats import ROUTES, THREATS

DATA = {"name": "digits", "split": "test", "fingerprint": "f"}
SETTINGS = {
    "gray_box": {"name": "gray_box", "routes": []},
    "white_box": {"name": "white_box", "routes": ["exact", "identity"]},
}


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("small_cnn", widths=[4, 8]).eval()


def defended(seed: int = 0, of: int = 0) -> Defended:
    torch.manual_seed(seed)
    return Defended(build("segnet_small", widths=[4, 8], convs=[1, 1]), classifier(of)).eval()


def defences() -> dict[str, Defended]:
    return {"none": Defended(None, classifier()), "ae": defended(1), "adversarial": Defended(None, classifier(5))}


class Noisy(nn.Module):
    """A purifier that answers at random."""

    def forward(self, images):
        return images + 0.1 * torch.randn_like(images)


def planned(modules=None, attacks=None, budgets=None, seed=0, chunk=10, data=DATA) -> list[cells.Cell]:
    modules = modules or defences()
    probe = torch.rand(4, 1, 16, 16)
    tried = cells.attempts(modules, SETTINGS, weights.fingerprint)
    return cells.plan(
        tried,
        tried,
        attacks or {"pgd": {"name": "pgd", "steps": 3}},
        budgets or {"linf": [0.1]},
        seed,
        chunk,
        data,
        weights.fingerprint,
        lambda module: deterministic(module, probe),
        list(modules),
    )


def keys(**changed) -> set[str]:
    return {cell.key for cell in planned(**changed) if cell.source is not None}


@pytest.fixture
def images():
    return torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_what_the_defended_answers(route, images):
    module = defended()
    source = ROUTES[route](module)
    for x in (images, images.clone().requires_grad_()):
        assert torch.equal(source(x), module(x))


def test_identity_is_the_classifiers_gradient_at_the_purified_image(images):
    module, labels = defended(), torch.tensor([1, 2, 3])
    x = images.clone().requires_grad_()
    (through,) = torch.autograd.grad(functional.cross_entropy(ROUTES["identity"](module)(x), labels), x)
    purified = module.purifier(images).detach().requires_grad_()
    (at,) = torch.autograd.grad(functional.cross_entropy(module.classifier(purified), labels), purified)
    assert torch.equal(through, at)
    (exact,) = torch.autograd.grad(functional.cross_entropy(ROUTES["exact"](module)(x), labels), x)
    assert not torch.allclose(exact, at)


def test_exact_is_the_gradient_by_differences(images):
    module = defended().double()
    x = images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(ROUTES["exact"](module)(x)[:, 0].sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        step = 1e-6
        rise = (module(x + step * direction) - module(x - step * direction))[:, 0].sum() / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), rise, rtol=1e-4, atol=1e-8)


def test_gray_box_knows_the_bare_classifier_and_all_judge():
    modules = defences()
    (attempt,) = THREATS["gray_box"](modules, [], weights.fingerprint)
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(attempt.source(images), modules["ae"].classifier(images))
    assert attempt.judges == ("none", "ae", "adversarial")
    assert not attempt.sole_judge


def test_gray_box_has_a_source_for_each_classifier_that_is_defended():
    modules = {"none": Defended(None, classifier()), "ae": defended(1), "other": defended(1, of=7)}
    found = THREATS["gray_box"](modules, [], weights.fingerprint)
    assert sorted(attempt.judges for attempt in found) == [("none", "ae"), ("none", "other")]


def test_white_box_is_each_defence_by_each_route_before_itself():
    found = THREATS["white_box"](defences(), ["exact", "identity"], weights.fingerprint)
    assert [(attempt.source_name, attempt.route) for attempt in found] == [
        ("none", "exact"), ("ae", "exact"), ("ae", "identity"), ("adversarial", "exact")
    ]  # fmt: skip
    assert all(attempt.judges == (attempt.source_name,) and attempt.sole_judge for attempt in found)


def test_leaving_early_is_for_sole_deterministic_judges_only():
    random = Defended(Noisy(), classifier(9))
    found = planned({**defences(), "random": random})
    early = {
        (threat, source, cell.preimage["route"]): cell.preimage["leave_early"]
        for cell in found[1:]
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
    }


def test_gray_and_white_box_share_what_they_craft_of_the_bare_classifier():
    shared = [cell for cell in planned() if {view[0] for view in cell.views} == {"gray_box", "white_box"}]
    assert len(shared) == 1
    assert shared[0].judges == ["none", "ae", "adversarial"]


CHANGES = {
    "seed": {"seed": 1},
    "budget": {"budgets": {"linf": [0.2]}},
    "norm": {"budgets": {"l2": [0.1]}},
    "attack": {"attacks": {"bim": {"steps": 3}}},
    "option": {"attacks": {"pgd": {"steps": 4}}},
    "chunk": {"chunk": 11},
    "data": {"data": {**DATA, "fingerprint": "g"}},
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
        ({"name": "pdg"}, "attack.mine.name=pdg: allowed are fgsm, "),
        ({"name": "deepfool"}, "attack.mine.name=deepfool: looks for the smallest perturbation"),
        ({"name": "pgd", "stepz": 3}, "attack.mine.stepz: pgd has no such option; allowed are steps, "),
        ({"name": "pgd", "eps": 0.3}, "attack.mine.eps: pgd has no such option"),
        ({"name": "pgd", "loss": "ce"}, "attack.mine.loss=ce: allowed are cross_entropy, "),
        ({"name": "pgd", "steps": 0}, "attack.mine: pgd refuses its options: steps=0: at least 1"),
        ({"name": "pgd", "steps": "many"}, "attack.mine: pgd refuses its options: "),
        ({"name": "pgd", "sparsity": 2.0}, "attack.mine: pgd refuses its options: sparsity=2.0"),
    ],
)
def test_bad_attacks_are_one_line_before_anything_runs(attack, line):
    with pytest.raises(ValueError) as error:
        planned(attacks={"mine": attack})
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_unknown_threats_and_norms_an_attack_does_not_know():
    with pytest.raises(ValueError, match=r"threat.mine.name=grey_box: allowed are gray_box, white_box"):
        cells.attempts(defences(), {"mine": {"name": "grey_box", "routes": []}}, weights.fingerprint)
    assert not keys(attacks={"fgsm": {}}, budgets={"l1": [1.0]})
