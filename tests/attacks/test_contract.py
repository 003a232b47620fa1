"""The contract of design.md 4.1, over every attack there is: what it returns, what it leaves alone."""

import random

import numpy
import pytest
import torch
from linear_models import ATTACKS, BUDGET, EVERY_NORM, GRADIENT, Linear, call, options, problem
from torch import nn

from s2snet.attacks import Noise, Passes
from s2snet.attacks.balls import distance
from s2snet.attacks.losses import fooled

EPS = [8 / 255, 25.5 / 255, 0.0, 1.0]
SHAPES = [(7,), (3, 6), (2, 8, 8)]


class Net(nn.Module):
    """A small convolutional network with BatchNorm and dropout."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(64, 5)

    def forward(self, images):
        return self.head(self.dropout(self.body(images).flatten(1)))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
        net.body[1].running_mean.uniform_(-0.1, 0.1)
    return net.eval()


@pytest.fixture
def batch(net):
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(3, 2, 8, 8, generator=draw)
    images[images < 0.2], images[images > 0.8] = 0, 1
    with torch.no_grad():
        return images, net(images).argmax(dim=1)


def flat_problem(shape, count):
    draw = torch.Generator().manual_seed(3)
    pixels = torch.Size(shape).numel()
    model = Linear(torch.randn(4, pixels, generator=draw), torch.randn(4, generator=draw) / 10)
    images = torch.rand(count, *shape, generator=draw)
    return model, images, model(images).argmax(dim=1)


@pytest.mark.parametrize(("name", "norm"), EVERY_NORM)
def test_shape_type_ball_and_box_at_every_rank_and_radius(name, norm):
    for shape in SHAPES:
        for count in (0, 1, 5):
            model, images, labels = flat_problem(shape, count)
            before = images.clone()
            for eps in EPS if count > 1 and shape == SHAPES[-1] and name in BUDGET else EPS[:1]:
                found = call(name, model, images, labels, eps=eps, norm=norm)
                assert found.shape == images.shape and found.dtype == images.dtype
                assert found.device == images.device and not found.requires_grad
                assert torch.equal(images, before)
                assert found is not images
                if count:
                    assert found.min() >= 0 and found.max() <= 1
                if name in BUDGET:
                    assert (distance(found, images, norm) <= eps).all()
                    assert eps > 0 or torch.equal(found, images)


@pytest.mark.parametrize("name", ATTACKS)
def test_float64_images_come_back_as_float64(name):
    model, images, labels = flat_problem((3, 6), 4)
    found = call(name, model.double(), images.double(), labels, eps=0.1)
    assert found.dtype == torch.float64
    assert name not in BUDGET or (distance(found, images.double(), ATTACKS[name].norms[0]) <= 0.1).all()


def record(model):
    """All that an attack must leave alone."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return (
        state,
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        torch.get_rng_state(),
        numpy.random.get_state()[1].tolist(),
        random.getstate(),
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
    )


def same(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1] == after[1] and before[2] == after[2]
    for b, a, value in zip(before[3], after[3], before[4], strict=True):
        assert b is a and (a is None or torch.equal(a, value))
    assert torch.equal(before[5], after[5])
    assert before[6:] == after[6:]


def unusual(net):
    """A training module with a frozen part, dropout on in a part that is in eval, gradients lying about."""
    net.train()
    net.body[1].eval().requires_grad_(False)
    net.head.eval()
    for k, parameter in enumerate(net.parameters()):
        if parameter.requires_grad and k % 2:
            parameter.grad = torch.full_like(parameter, float(k))
    return net


@pytest.mark.parametrize("name", ATTACKS)
def test_the_module_and_all_random_states_are_as_before(name, net, batch):
    for model in (net, unusual(net), net.train()):
        before = record(model)
        call(name, model, *batch)
        same(before, record(model))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_frozen_part_of_a_training_module_stays_frozen_on_the_way(name, net, batch):
    net.train().body[1].eval()
    seen = []
    net.body[1].register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    call(name, net, *batch)
    assert seen and not any(seen)


@pytest.mark.parametrize("name", ATTACKS)
def test_buffers_are_as_before_after_an_exception(name, net, batch):
    net.train()
    before = net.body[1].running_mean.clone()
    net.head.register_forward_hook(lambda *_: 1 / 0)  # after BatchNorm has moved its statistics
    with pytest.raises(ZeroDivisionError):
        call(name, net, *batch)
    assert torch.equal(net.body[1].running_mean, before)


@pytest.mark.parametrize("name", ATTACKS)
def test_also_after_an_exception(name, net, batch):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = unusual(net)
            self.left = 2

        def forward(self, images):
            self.left -= 1
            random.random(), numpy.random.rand(), torch.rand(1)
            logits = self.net(images)
            if self.left < 0:
                self.eval()
                raise RuntimeError("power")
            return logits

    model = Broken()
    before = record(model)
    with pytest.raises(RuntimeError, match="power"):
        model.left = 0
        call(name, model, *batch)
    same(before, record(model))


@pytest.mark.parametrize("name", ATTACKS)
def test_gradients_and_flags_that_the_module_sets_itself_are_put_back(name, net, batch):
    """As a defence does that adapts while it answers."""

    class Adaptive(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = unusual(net)

        def forward(self, images):
            for parameter in self.net.parameters():
                parameter.requires_grad_(True)
                parameter.grad = torch.ones_like(parameter)
            self.net.dropout.eval()
            return self.net(images)

    model = Adaptive()
    before = record(model)
    call(name, model, *batch)
    same(before, record(model))


@pytest.mark.parametrize("name", ATTACKS)
def test_batchnorm_in_training_mode_is_attacked_so_and_its_statistics_restored(name, net, batch):
    net.train()
    seen = []
    net.body[1].register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    statistics = net.body[1].running_mean.clone(), net.body[1].num_batches_tracked.clone()
    call(name, net, *batch)
    assert seen and all(seen)
    assert torch.equal(net.body[1].running_mean, statistics[0])
    assert torch.equal(net.body[1].num_batches_tracked, statistics[1])


@pytest.mark.parametrize("name", ATTACKS)
def test_dropout_that_is_on_in_eval_mode_stays_on(name, net, batch):
    net.dropout.train()
    seen = []
    net.dropout.register_forward_hook(lambda module, inputs, output: seen.append(bool((output == 0).any())))
    call(name, net, *batch)
    assert all(seen) and net.dropout.training and not net.training


@pytest.mark.parametrize("name", ATTACKS)
def test_works_inside_no_grad_inference_mode_and_autocast(name, net, batch):
    want = call(name, net, *batch)
    with torch.no_grad():
        assert torch.equal(call(name, net, *batch), want)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        images, labels = batch[0].clone(), batch[1].clone()
        assert images.is_inference()
        found = call(name, net, images, labels)
        assert torch.equal(found, want) and not found.is_inference()
        assert torch.is_inference_mode_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = record(net)
        found = call(name, net, *batch)
        same(before, record(net))
    assert found.dtype == torch.float32
    assert name not in BUDGET or (distance(found, batch[0], ATTACKS[name].norms[0]) <= 8 / 255).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_module_that_works_in_place_does_not_move_the_image(name):
    model, images, labels = flat_problem((3, 6), 4)

    class InPlace(nn.Module):
        def forward(self, images):
            return model(images.sub_(0.5).add_(0.5))

    found = call(name, InPlace(), images, labels)
    assert found.allclose(call(name, model, images, labels), atol=1e-5)
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_call_gives_the_same_images(name, net, batch):
    net.dropout.train()  # also where the module answers at random
    first = call(name, net, *batch, noise=Noise(5))
    torch.rand(3)
    assert torch.equal(first, call(name, net, *batch, noise=Noise(5)))


@pytest.mark.parametrize(("name", "norm"), EVERY_NORM)
def test_an_images_result_is_its_own_whatever_is_in_the_batch(name, norm):
    model, images, labels = problem(classes=4, count=5, seed=4)
    model.exact = True
    places = list(range(20, 25))
    wanted = {"eps": 0.05, "norm": norm, "restarts": 2}
    if name == "cw":
        wanted["steps"] = 30  # so that some searches end early
    whole = call(name, model, images, labels, noise=Noise(3, places), **wanted)
    order = torch.tensor([4, 0, 2, 1, 3])
    mixed = call(name, model, images[order], labels[order], noise=Noise(3, [places[k] for k in order]), **wanted)
    assert mixed.allclose(whole[order], atol=2e-5)
    for part in (slice(0, 1), slice(1, 5)):
        one = call(name, model, images[part], labels[part], noise=Noise(3, places[part]), **wanted)
        assert one.allclose(whole[part], atol=2e-5)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_starts_follow_seed_and_image(name):
    model, images, labels = problem(classes=4, seed=4)
    found = [call(name, model, images, labels, noise=Noise(seed), steps=1) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], call(name, model, images, labels, noise=Noise(0, range(8, 16)), steps=1))


@pytest.mark.parametrize(("name", "norm"), EVERY_NORM)
def test_leaving_early_gives_the_same_verdict_image_by_image(name, norm):
    count = 6 if name == "lbfgs" else 40
    model, images, labels = problem(classes=3, count=count, seed=5)
    radius = {"linf": 0.015 if name in GRADIENT else 0.03, "l2": 0.08, "l1": 0.4}[norm]
    passes, full = Passes(count), Passes(count)
    wanted = {"eps": radius, "norm": norm, "restarts": 2}
    early = call(name, model, images, labels, leave_early=True, passes=passes, **wanted)
    whole = call(name, model, images, labels, passes=full, **wanted)
    verdicts = fooled(model(early), labels), fooled(model(whole), labels)
    assert torch.equal(*verdicts)
    if name in BUDGET:
        assert verdicts[0].any() and not verdicts[0].all()
        if name != "fgsm":  # the images that fool before the last step paid less, the others the same
            assert (passes.forwards <= full.forwards).all()
            assert (passes.forwards < full.forwards)[verdicts[0]].double().mean() > 0.5
            assert torch.equal(passes.forwards[~verdicts[0]], full.forwards[~verdicts[0]])


@pytest.mark.parametrize(("name", "norm"), EVERY_NORM)
@pytest.mark.parametrize("draws", [1, 3])
def test_passes_counted_are_the_passes_made(name, norm, draws):
    linear, images, labels = problem(classes=4, count=3, seed=6)
    seen = {"forwards": 0, "backwards": 0}

    def model(x):
        seen["forwards"] += len(x)
        if x.requires_grad:
            x.register_hook(lambda gradient: seen.update(backwards=seen["backwards"] + len(gradient)))
        return linear(x)

    for leave_early in (False, True):
        seen.update(forwards=0, backwards=0)
        passes = Passes(3)
        call(
            name,
            model,
            images,
            labels,
            norm=norm,
            draws=draws,
            restarts=2,
            eps=0.05,
            passes=passes,
            leave_early=leave_early,
            target_classes=2,
        )
        assert passes.forwards.dtype == passes.backwards.dtype == torch.int32
        assert int(passes.forwards.sum()) == seen["forwards"] > 0
        assert int(passes.backwards.sum()) == seen["backwards"]


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_input_is_refused_with_the_remedy(name):
    model, images, labels = problem(classes=3)
    for bad, message in (
        ((images.half(), labels), "float32"),
        ((images[:, 0], labels), "rank 1"),
        ((images[..., None, None, None], labels), "rank 5"),
        ((images, labels.int()), "labels: .* got torch.int32"),
        ((images, labels[:-1]), r"labels: .* got torch.int64 \(7,\)"),
        ((images * 2.2, labels), r"expected values in \[0, 1\]"),
        ((images + torch.nan, labels), r"expected values in \[0, 1\]"),
        ((images, labels + 5), "the model has 3 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            call(name, model, *bad)
    with pytest.raises(ValueError, match="norm='l7': allowed are"):
        call(name, model, images, labels, norm="l7")
    with pytest.raises(ValueError, match=r"passes: .* got 3"):
        call(name, model, images, labels, passes=Passes(3))
    if name in BUDGET:
        with pytest.raises(ValueError, match="did you mean 8/255"):
            call(name, model, images, labels, eps=8.0)
        with pytest.raises(ValueError, match="at least 0"):
            call(name, model, images, labels, eps=-0.1)
    if options(name, {"steps": 0}):
        with pytest.raises(ValueError, match="steps=0"):
            call(name, model, images, labels, steps=0)
    with pytest.raises(ValueError, match=r"logits \[B, K\]"):
        call(name, lambda x: x.flatten(1).sum(dim=1), images, labels)


@pytest.mark.parametrize("name", GRADIENT)
def test_a_module_that_lets_no_gradient_through_is_an_error_and_not_robust(name):
    model, images, labels = problem(classes=3)
    with pytest.raises(ValueError, match="no gradient reaches the images"):
        call(name, lambda x: model(x.detach()), images, labels)
