"""On linear models the needed radius is known exactly: attacks reach it, and nothing gets by with less."""

import pytest
import torch
from linear_models import ATTACKS, BUDGET, GRADIENT, Linear, call, needed, problem

from s2snet.attacks.balls import distance
from s2snet.attacks.losses import fooled

ONE_STEP = {("fgsm", "l2")}  # cut to the box after its one step, it is not the best point there
BUDGET_NORMS = [(name, norm) for name in GRADIENT if name in BUDGET for norm in ATTACKS[name].norms]


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize(("name", "norm"), BUDGET_NORMS)
def test_a_budget_attack_needs_the_needed_radius_and_no_more(name, norm, box):
    model, images, labels = problem(classes=2, box=box, count=2)
    radius = needed(model, images, labels, norm)
    assert radius.isfinite().all()
    for k in range(len(images)):
        one, label = images[k : k + 1], labels[k : k + 1]
        for factor, success in ((0.9, False), (1.1, True)):
            if success and box and (name, norm) in ONE_STEP:
                continue
            eps = factor * float(radius[k])
            found = call(name, model, one, label, eps=eps, norm=norm, steps=24, step_size=eps / 10)
            assert bool(fooled(model(found), label)) == success, (k, factor)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr", "probability_margin"])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_every_loss_reaches_the_nearest_class_in_the_end(loss, classes):
    model, images, labels = problem(classes=classes, seed=1, count=2, spread=0.3)
    radius = needed(model, images, labels, "linf")
    for k in range(len(images)):
        found = [
            call(
                "pgd",
                model,
                images[k : k + 1],
                labels[k : k + 1],
                loss=loss,
                eps=f * float(radius[k]),
                steps=25,
            )
            for f in (0.9, 1.3)
        ]
        assert not fooled(model(found[0]), labels[k : k + 1]).any()
        assert fooled(model(found[1]), labels[k : k + 1]).all()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_targeted_runs_find_the_nearest_class_exactly(classes):
    model, images, labels = problem(classes=classes, seed=2, count=2)
    for norm in ("linf", "l2"):
        radius = needed(model, images, labels, norm)
        for k in range(len(images)):
            for factor in (0.95, 1.05):
                found = call(
                    "apgd",
                    model,
                    images[k : k + 1],
                    labels[k : k + 1],
                    eps=factor * float(radius[k]),
                    norm=norm,
                    loss="dlr",
                    target_classes=9,
                    steps=20,
                )
                assert bool(fooled(model(found), labels[k : k + 1])) == (factor > 1)


def test_least_likely_ends_in_the_least_likely_class():
    model = Linear(torch.eye(4, 8) * 10, torch.zeros(4))
    images = torch.full((2, 8), 0.5)
    images[:, :4] += torch.tensor([[0.03, 0.0, 0.01, -0.01], [0.0, 0.02, -0.02, 0.01]])
    found = call("least_likely", model, images, torch.tensor([0, 1]), eps=0.1, steps=20)
    assert model(found).argmax(dim=1).tolist() == [3, 2]
    # where the label itself comes last, the last of the others
    found = call("least_likely", model, images, torch.tensor([3, 2]), eps=0.1, steps=20)
    assert model(found).argmax(dim=1).tolist() == [1, 0]


def test_least_likely_refuses_targets():
    model, images, labels = problem(3, 9, count=2)
    with pytest.raises(ValueError, match="least_likely chooses its own targets"):
        call("least_likely", model, images, labels, targets=labels)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_moves_along_the_gradient_by_eps(norm):
    model, images, labels = problem(classes=2)
    delta = call("fgsm", model, images, labels, eps=0.05, norm=norm) - images
    slope = (model.weights[1 - labels] - model.weights[labels]).detach()
    assert distance(images + delta, images, norm).allclose(torch.tensor(0.05).double(), rtol=1e-5)
    want = slope.sign() if norm == "linf" else slope / slope.norm(dim=1, keepdim=True)
    assert delta.allclose(0.05 * want, atol=1e-6)


@pytest.mark.parametrize("name", ["fgsm", "bim", "mim", "pgd", "apgd"])
def test_a_target_is_reached_at_its_distance(name):
    model, images, labels = problem(classes=2, count=2)
    radius = needed(model, images, labels, "linf")
    for k in range(len(images)):
        for factor in (0.9, 1.1):
            eps, one, label = factor * float(radius[k]), images[k : k + 1], labels[k : k + 1]
            found = call(name, model, one, label, eps=eps, targets=1 - label, steps=20)
            assert bool(fooled(model(found), label, 1 - label)) == (factor > 1)
