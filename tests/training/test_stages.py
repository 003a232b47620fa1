"""Each stage's loss by hand, what is frozen, and what one step does."""

from dataclasses import replace

import pytest
import torch
from tiny import train
from torch import nn
from torch.nn import functional

from s2snet import data, models
from s2snet.config.recipe import Recipe, Recipes
from s2snet.store import weights
from s2snet.training import tune
from s2snet.training.adversarial import TrainAdversarial
from s2snet.training.autoencoder import TrainAutoencoder
from s2snet.training.classifier import TrainClassifier
from s2snet.training.finetune import FinetuneDecoder
from s2snet.training.loaders import Batches, derived_seed

EPS = 0.1


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return models.build("small_cnn", widths=[4, 8])


def autoencoder() -> nn.Module:
    torch.manual_seed(1)
    return models.build("segnet_small", widths=[4, 8], convs=[1, 1])


def recipe(name: str, **changed) -> Recipe:
    """The default recipe of a stage, with changes."""
    return replace(getattr(Recipes(), name), **changed)


def stage_of(name: str, **changed):
    """The Lightning module of a stage on tiny networks, which logs nowhere."""
    stage = {
        "classifier": lambda recipe: TrainClassifier(classifier(), recipe, 0),
        "stage1": lambda recipe: TrainAutoencoder(autoencoder(), recipe, 0),
        "stage2": lambda recipe: FinetuneDecoder(autoencoder(), classifier(), recipe, 0),
        "adversarial": lambda recipe: TrainAdversarial(classifier(), replace(recipe, eps=changed.get("eps", EPS)), 0),
    }[name](recipe(name, **changed))
    stage.log = lambda *_, **__: None
    return stage.train()


@pytest.fixture(scope="module")
def batch():
    images = data.load("digits", size=16).train
    places = range(0, 1280, 40)
    return (
        torch.stack([images[place][0] for place in places]),
        torch.tensor([images[place][1] for place in places]),
        torch.tensor([images[place][2] for place in places]),
    )


def test_classifier_is_cross_entropy(batch):
    images, labels, _ = batch
    loss = stage_of("classifier").training_step(batch, 0)
    picked = classifier()(images).log_softmax(dim=1)[torch.arange(len(labels)), labels]
    torch.testing.assert_close(loss, -picked.mean())


def test_classifier_smooths_labels(batch):
    images, labels, _ = batch
    loss = stage_of("classifier", label_smoothing=0.2).training_step(batch, 0)
    logs = classifier()(images).log_softmax(dim=1)
    wanted = 0.8 * functional.one_hot(labels, 10) + 0.02
    torch.testing.assert_close(loss, -(wanted * logs).sum(dim=1).mean())


def test_stage_1_is_the_pixel_error_and_reads_no_labels(batch):
    images, _, _ = batch
    loss = stage_of("stage1").training_step((images, None, None), 0)
    torch.testing.assert_close(loss, ((autoencoder()(images) - images) ** 2).mean())


def by_hand_stage_2(images, labels):
    """Cross-entropy of the classifier in eval mode on D(E(x)), E in eval mode, D in training mode."""
    f, a = classifier().eval(), autoencoder()
    a.encoder.eval()
    purified = a(images)
    return functional.cross_entropy(f(purified), labels), functional.mse_loss(purified, images)


def test_stage_2_is_the_frozen_classifiers_cross_entropy(batch):
    images, labels, _ = batch
    loss = stage_of("stage2").training_step(batch, 0)
    torch.testing.assert_close(loss, by_hand_stage_2(images, labels)[0])


def test_stage_2_with_the_classifiers_own_labels(batch):
    images, labels, index = batch
    predictions = classifier().eval()(images).argmax(dim=1)
    assert not torch.equal(predictions, labels)
    loss = stage_of("stage2", labels="classifier").training_step((images, None, index), 0)
    torch.testing.assert_close(loss, by_hand_stage_2(images, predictions)[0])


def test_stage_2_adds_the_weighted_reconstruction(batch):
    images, labels, _ = batch
    cross_entropy, error = by_hand_stage_2(images, labels)
    assert error > 0
    loss = stage_of("stage2", reconstruction_weight=3.0).training_step(batch, 0)
    torch.testing.assert_close(loss, cross_entropy + 3 * error)


def test_stage_2_gives_gradients_to_the_decoder_only(batch):
    stage = stage_of("stage2")
    stage.training_step(batch, 0).backward()
    asked = {id(parameter) for parameter in stage.parameters_to_train()}
    for name, parameter in stage.named_parameters():
        of_decoder = name.startswith("trained.decoder.")
        assert (id(parameter) in asked) == of_decoder, name
        assert (parameter.grad is not None) == of_decoder, name
    assert len(asked) > 0


def fgsm_by_hand(images, labels, eps):
    """Made in eval mode, by the running statistics that the clean half of the step has just moved."""
    module, x = classifier(), images.clone().requires_grad_()
    module(images)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(module.eval()(x), labels), x)
    return (images + eps * gradient.sign()).clamp(0, 1)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_adversarial_mixes_both_halves_by_alpha(batch, alpha):
    images, labels, _ = batch
    loss = stage_of("adversarial", alpha=alpha).training_step(batch, 0)
    halves = [functional.cross_entropy(classifier()(x), labels) for x in (images, fgsm_by_hand(images, labels, EPS))]
    assert halves[1] > halves[0] + 0.05
    torch.testing.assert_close(loss, alpha * halves[0] + (1 - alpha) * halves[1], rtol=1e-4, atol=1e-5)


def test_adversarial_without_eps_is_plain_training(batch):
    plain, adversarial = stage_of("classifier"), stage_of("adversarial", eps=0.0)
    for stage in (plain, adversarial):
        stage.training_step(batch, 0).backward()
    for one, other in zip(plain.parameters(), adversarial.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_adversarial_examples_are_of_the_current_weights(batch):
    stage = stage_of("adversarial")
    before = stage.attacked(*batch)
    with torch.no_grad():
        stage.trained.head[1].weight.neg_()
    assert not torch.equal(stage.attacked(*batch), before)
    assert stage.trained.training


def test_frozen_survives_train():
    stage = stage_of("stage2")
    for _ in range(2):
        stage.eval()
        stage.train()
        frozen = [*stage.trained.encoder.modules(), *stage.classifier.modules()]
        assert not any(module.training for module in frozen)
        assert all(module.training for module in stage.trained.decoder.modules())
    stage.trained.train()  # even where somebody goes past the stage, Lightning calls its train() before each epoch
    stage.train()
    assert not any(module.training for module in stage.trained.encoder.modules())


def test_stage_2_leaves_all_but_the_decoder_bit_identical(trained, monkeypatch):
    """A real fit of some epochs; BatchNorm's buffers are part of the state."""
    made = []

    class Kept(FinetuneDecoder):
        def __init__(self, *parts, **more):
            super().__init__(*parts, **more)
            made.append(self)

    monkeypatch.setattr(tune, "FinetuneDecoder", Kept)
    path = train(
        "stage=2", f"runs={trained}", "output=again", "recipes.stage2.epochs=2", "recipes.stage2.batch_size=256"
    )
    earlier = weights.load(trained / "digits/autoencoder-segnet_small/weights.safetensors").state_dict()
    later = weights.load(path).state_dict()
    assert later.keys() == earlier.keys()
    changed = {key for key in later if not torch.equal(later[key], earlier[key])}
    assert changed == {key for key in later if key.startswith("decoder.")}
    f = weights.load(trained / "digits/classifier-small_cnn/weights.safetensors").state_dict()
    (stage,) = made
    assert f.keys() == stage.classifier.state_dict().keys()
    for key, tensor in stage.classifier.state_dict().items():
        assert torch.equal(tensor, f[key]), key


def test_stage_1_and_classifier_train_everything(trained):
    for kind in ("classifier-small_cnn", "autoencoder-segnet_small", "adversarial-small_cnn"):
        module = weights.load(trained / f"digits/{kind}/weights.safetensors")
        fresh = models.build(**module.config).state_dict()
        same = [key for key, tensor in module.state_dict().items() if torch.equal(tensor, fresh[key])]
        assert all(key.startswith("normalisation.") for key in same), (kind, same)


def test_one_sgd_step_is_the_gradient_times_lr():
    """One batch of all images through the whole loop, against the same step by hand."""
    options = {"optimiser": "sgd", "lr": 0.5, "momentum": 0.0, "schedule": "constant", "epochs": 1, "batch_size": 1293}
    words = [f"recipes.classifier.{key}={value}" for key, value in options.items()]
    path = train("stage=classifier", "seed=3", *words)
    torch.manual_seed(derived_seed(3, 0))
    module = models.build("small_cnn", widths=[8, 16]).to(memory_format=torch.channels_last)
    loader = Batches(data.load("digits", size=16), recipe("classifier", **options), 3, 0).train_dataloader()
    ((images, labels, _),) = list(loader)
    assert len(images) == 1293
    functional.cross_entropy(module(images), labels).backward()
    loaded = weights.load(path)
    for (name, by_hand), trained in zip(module.named_parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(trained, by_hand - 0.5 * by_hand.grad, rtol=1e-4, atol=1e-6, msg=name)
        assert by_hand.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", ["constant", "cosine", "poly"])
def test_schedules_begin_at_one_and_fall_to_their_end(name):
    from s2snet.training.stage import SCHEDULES

    factors = [SCHEDULES[name](step / 10) for step in range(11)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx({"constant": 1.0, "cosine": 0.0, "poly": 0.0}[name], abs=1e-6)
    assert factors[5] == pytest.approx({"constant": 1.0, "cosine": 0.5, "poly": 0.5**0.9}[name], abs=1e-6)


def test_what_stages_measure_is_what_they_can_stop_by(batch):
    for name, recipe in vars(Recipes()).items():
        measured = stage_of(name).eval().measure(batch)
        watched = {"val_robust_accuracy"} if hasattr(recipe, "watched") else set()  # by the watch on attacked images
        assert {f"val_{key}" for key in measured} | watched == set(recipe.metrics)
