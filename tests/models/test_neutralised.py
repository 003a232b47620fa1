"""Purifiers that take pixels out: what they change, what they leave, and what their gradients see."""

import pytest
import torch
from torch import Tensor, nn

from s2snet.evaluation.plan import deterministic
from s2snet.models import Defended, build
from s2snet.models.fills import FILLS, inpaint
from s2snet.models.folded import folded
from s2snet.store import weights
from s2snet.threats import ROUTES

CLASSIFIER = {"name": "small_cnn", "widths": [4, 8], "classes": 3}
SIZE = 12


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return build(**CLASSIFIER).eval().requires_grad_(False)


def pictures(count: int = 5) -> Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def static(fill: str = "inpaint") -> nn.Module:
    module = build("neutralised", size=SIZE, fill=fill)
    module.masks[0, 0, 3:6, 4:9] = 1
    return module.eval()


def per_class() -> nn.Module:
    module = build("neutralised", size=SIZE, classes=3, classifier=classifier().config)
    module.classifier.load_state_dict(classifier().state_dict())
    for label in range(3):
        module.masks[label, 0, 3 * label : 3 * label + 3] = 1
    return module.eval()


def per_input(**options) -> nn.Module:
    module = build("neutralised_per_input", classifier=classifier().config, size=SIZE, **options)
    module.classifier.load_state_dict(classifier().state_dict())
    return module.eval()


KINDS = {"static": static, "per_class": per_class, "per_input": per_input}


def gradient(function, images: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    return torch.autograd.grad(function(x).square().sum(), x)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_hole_changes_and_any_caller_gets_the_same(kind):
    purifier, images = KINDS[kind](), pictures()
    with torch.no_grad():
        purified, hole = purifier(images), purifier.hole(images).bool()
    assert hole.any() and not hole.all() and hole.shape == (5, 1, SIZE, SIZE)
    assert torch.equal(purified[~hole], images[~hole])
    assert not torch.isclose(purified[hole], images[hole]).all()
    assert torch.equal(purifier(images.clone().requires_grad_()), purified)
    with torch.inference_mode():
        assert torch.equal(purifier(images), purified)
    assert deterministic(Defended(purifier, classifier()), images)
    alone = torch.cat([purifier(image[None]) for image in images])
    torch.testing.assert_close(alone, purified, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_leaves_modes_gradients_and_buffers_alone(kind):
    purifier = KINDS[kind]()
    before = {key: tensor.clone() for key, tensor in purifier.state_dict().items()}
    purifier.train()
    for parameter in purifier.parameters():
        parameter.requires_grad_(True)
    purifier(pictures())
    assert purifier.training and (purifier.classifier is None or not purifier.classifier.training)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in purifier.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in purifier.state_dict().items())


@pytest.mark.parametrize("fill", ["mean", "inpaint"])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_gradients_pass_beside_the_hole_and_never_through_it(kind, fill):
    purifier, images = KINDS[kind](), pictures()
    purifier.fill = fill
    hole = purifier.hole(images).bool()
    found = gradient(Defended(purifier, classifier()), images)
    assert (found[hole] == 0).all() and found[~hole].any()


def test_the_exact_gradient_is_that_of_the_hole_held_still():
    purifier, images = per_input(), pictures()
    hole = purifier.hole(images)
    held = gradient(lambda x: classifier()(purifier.filled(x, hole)[0]), images)
    assert torch.equal(gradient(Defended(purifier, classifier()), images), held)


@pytest.mark.parametrize("kind", ["per_class", "per_input"])
def test_soft_is_the_same_answer_and_sees_the_hole_move(kind):
    defended, images = Defended(KINDS[kind](), classifier()), pictures()
    assert ROUTES["soft"].offered(defended, False)
    source = ROUTES["soft"].build(defended, None, temperature=0.3)
    assert torch.equal(source(images), defended(images))
    exact, soft = gradient(defended, images), gradient(source, images)
    assert soft.isfinite().all() and (soft - exact).norm() > 1e-3 * exact.norm()


def test_the_soft_gradient_of_the_hole_is_the_soft_holes():
    """By differences: what `soft_hole` does to (fill - image), held still."""
    purifier, images = per_class().double(), pictures(1).double()
    content = purifier.filled(images, purifier.hole(images))[1]
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(2)).double()

    def moved(x: Tensor) -> Tensor:
        return (purifier.soft_hole(x, 0.5) * (content - images)).sum()

    x = images.clone().requires_grad_()
    full, still = purifier.soft(x, 0.5).sum(), purifier(x).sum()
    slope = torch.autograd.grad(full, x)[0] - torch.autograd.grad(still, x)[0]
    rise = (moved(images + 1e-5 * direction) - moved(images - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((slope * direction).sum(), rise.detach(), rtol=1e-4, atol=1e-9)


def test_one_mask_for_all_has_nothing_to_soften():
    assert not ROUTES["soft"].offered(Defended(static(), classifier()), False)


def test_masks_per_class_are_looked_up_by_what_the_classifier_predicts():
    purifier, images = per_class(), pictures()
    predicted = classifier()(images).argmax(dim=1)
    assert torch.equal(purifier.hole(images), purifier.masks[predicted])


@pytest.mark.parametrize("kind", KINDS)
def test_a_weights_file_brings_it_back(kind, tmp_path):
    purifier = KINDS[kind]()
    weights.save(purifier, tmp_path / "p.safetensors", study="regions")
    again = weights.load(tmp_path / "p.safetensors")
    assert weights.fingerprint(again) == weights.fingerprint(purifier)
    assert torch.equal(again(pictures()), purifier(pictures()))


def test_a_file_whose_classifier_is_somebodys_code_is_refused(tmp_path):
    inside = {"name": "custom", "target": "torch.nn:Flatten", "options": {}, "classes": SIZE * SIZE}
    weights.save(build("neutralised_per_input", classifier=inside, size=SIZE), tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match=r"loading it runs the code 'torch.nn:Flatten'"):
        weights.load(tmp_path / "p.safetensors")
    assert weights.load(tmp_path / "p.safetensors", trusted="torch.nn:Flatten").shape == (1, SIZE, SIZE)


def test_the_copy_for_crafting_answers_alike():
    purifier, images = per_input(), pictures(8)
    copied = folded(purifier, images)
    assert copied is not purifier
    torch.testing.assert_close(copied(images), purifier(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes_are_one_line(kind):
    with pytest.raises(ValueError, match=r"expected images of 1 x 12 x 12, got 1 x 16 x 16$"):
        KINDS[kind]()(torch.rand(2, 1, 16, 16))


@pytest.mark.parametrize(
    "name, options, line",
    [
        ("neutralised", {"fill": "inpain"}, r"fill=.*inpain"),
        ("neutralised", {"width": 0}, "width=0"),
        ("neutralised", {"classes": 3}, "classes=3 and no classifier: masks per class need both"),
        (
            "neutralised_per_input",
            {"classifier": {"name": "segnet"}},
            r"classifier.name=segnet.*: allowed are small_cnn",
        ),
        ("neutralised_per_input", {"classifier": CLASSIFIER, "q_attack": 1.0}, "q_attack=1.0: expected a share"),
        ("neutralised_per_input", {"classifier": CLASSIFIER, "starts": 0}, "starts=0: expected at least 1"),
    ],
)
def test_bad_options_are_one_line(name, options, line):
    with pytest.raises(ValueError, match=line) as error:
        build(name, **options)
    assert "\n" not in str(error.value)


def hole_in(size: int, *places: slice) -> Tensor:
    hole = torch.zeros(1, 1, size, size)
    hole[:, :, *places] = 1
    return hole


@pytest.mark.parametrize("size", [1, 7, 16, 33])
def test_every_fill_keeps_a_constant_image(size):
    images = torch.full((2, 3, size, size), 0.25)
    hole = hole_in(size, slice(size // 3, size // 2), slice(0, size // 2)).expand(2, -1, -1, -1)
    for fill in FILLS.values():
        torch.testing.assert_close(fill(images, hole, torch.full((3, 1, 1), 0.25), 2.0), images)


def test_inpainting_continues_a_slope_and_reads_nothing_of_the_hole():
    ramp = (torch.arange(16.0) / 16).expand(1, 1, 16, 16).contiguous()
    hole = hole_in(16, slice(5, 10), slice(5, 10))
    torch.testing.assert_close(inpaint(ramp, hole, torch.zeros(1, 1, 1), 2.0), ramp, rtol=0, atol=1 / 255)
    noisy = torch.where(hole.bool(), torch.rand(ramp.shape), ramp)
    assert torch.equal(inpaint(noisy, hole, None, 2.0), inpaint(ramp, hole, None, 2.0))
    assert inpaint(ramp, torch.ones_like(hole), None, 2.0).eq(0).all()
