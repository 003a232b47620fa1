"""Stage 2 on moving examples: the loss by hand, through what the attack passes, what is frozen, and the watch."""

import csv
from dataclasses import asdict, replace

import pytest
import torch
from test_stages import EPS, autoencoder, batch, classifier  # noqa: F401  batch is a fixture
from tiny import train
from torch import Tensor, nn
from torch.nn import functional

from s2snet.attacks import Noise, nfgsm
from s2snet.config.option import check
from s2snet.config.recipe import AdversarialRecipe, Recipes, Stage2Recipe
from s2snet.models import Defended
from s2snet.store import weights
from s2snet.training.adversarial import TrainAdversarial
from s2snet.training.attacked import CollapseWatch
from s2snet.training.finetune import FinetuneDecoder
from s2snet.training.loaders import derived_seed
from s2snet.training.tune import TunePurifier, stage_two


def stage_of(**changed) -> TunePurifier:
    """The module on tiny networks at the full radius, without a trainer."""
    recipe = replace(Stage2Recipe(examples="adversarial", eps=EPS, ramp=0.0), **changed)
    stage = stage_two(autoencoder(), classifier(), recipe, seed=3)
    stage.log = lambda *_, **__: None
    return stage.train()


def by_hand(images: Tensor, examples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits on examples and on clean images by a whole autoencoder in training mode; the bare classifier's."""
    f, a = classifier().eval(), autoencoder().train()
    return f(a(examples)), f(a(images)), f(images)


def crafted(images: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    defended = Defended(autoencoder().eval(), classifier().eval())
    return nfgsm(defended, images, labels, eps=EPS, noise=Noise(derived_seed(3, 0), index))


def test_clean_examples_stay_the_papers_stage_2():
    assert type(stage_two(autoencoder(), classifier(), Stage2Recipe(), 0)) is FinetuneDecoder
    assert type(stage_of()) is TunePurifier


def test_adversarial_is_the_cross_entropy_on_attacked_and_half_of_it_on_clean_images(batch):  # noqa: F811
    images, labels, index = batch
    attacked, clean, _ = by_hand(images, crafted(images, labels, index))
    expected = functional.cross_entropy(attacked, labels) + 0.5 * functional.cross_entropy(clean, labels)
    torch.testing.assert_close(stage_of().training_step(batch, 0), expected)


def test_kl_learns_the_classifiers_own_clean_prediction_and_no_labels(batch):  # noqa: F811
    images, _, index = batch
    own = classifier().eval()(images).argmax(dim=1)
    attacked, clean, teacher = by_hand(images, crafted(images, own, index))

    def kl(logits: Tensor) -> Tensor:
        p, q = (teacher / 2).softmax(dim=1), (logits / 2).softmax(dim=1)
        return (p * (p.log() - q.log())).sum(dim=1).mean()

    stage = stage_of(loss="kl", labels="classifier", temperature=2.0)
    loss = stage.training_step((images, torch.full_like(own, -1), index), 0)
    torch.testing.assert_close(loss, kl(attacked) + 0.5 * kl(clean))


def test_the_attack_passes_through_the_purifier_and_static_does_not(batch):  # noqa: F811
    images, labels, index = batch
    through = stage_of().attacked(images, labels, index)
    static = stage_of(examples="static").attacked(images, labels, index)
    bare = nfgsm(classifier().eval(), images, labels, eps=EPS, noise=Noise(derived_seed(3, 0), index))
    assert torch.equal(through, crafted(images, labels, index))
    assert torch.equal(static, bare) and not torch.equal(static, through)


def test_crafting_sees_the_deployed_network_and_leaves_the_statistics_alone(batch):  # noqa: F811
    images, labels, index = batch
    stage = stage_of()
    modes: list[bool] = []
    stage.trained.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    before = {name: value.clone() for name, value in stage.trained.named_buffers()}
    stage.attacked(images, labels, index)
    assert modes == [False] and stage.trained.training
    assert all(torch.equal(value, before[name]) for name, value in stage.trained.named_buffers())


def test_noise_is_gaussian_not_clipped_and_drawn_per_image(batch):  # noqa: F811
    images, labels, index = batch
    noisy = stage_of(examples="noise", sigma=0.5).examples(images, labels, index)
    assert noisy.min() < -0.2 and noisy.max() > 1.2
    assert float((noisy - images).std()) == pytest.approx(0.5, rel=0.05)  # n = 8,192: standard error 0.004
    few = stage_of(examples="noise", sigma=0.5).examples(images[3:5], labels[3:5], index[3:5])
    assert torch.equal(few, noisy[3:5])


@pytest.mark.parametrize(("tuned", "moved"), [(None, {"encoder", "decoder"}), ("decoder", {"decoder"})])
def test_only_the_tuned_part_learns(batch, tuned, moved):  # noqa: F811
    stage = stage_of(tuned=tuned)
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    optimiser = torch.optim.SGD(stage.parameters_to_train(), lr=0.1)
    stage.training_step(batch, 0).backward()
    optimiser.step()
    changed = {name.split(".")[1] for name, value in stage.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == moved
    assert all(
        torch.equal(value, before[f"classifier.{name}"]) for name, value in stage.classifier.state_dict().items()
    )


def test_the_radius_rises_linearly_over_the_ramp(monkeypatch):
    stage = stage_of(ramp=0.5)
    monkeypatch.setattr(stage, "total_steps", lambda: 20)
    radii = []
    for step in (0, 4, 9, 10, 19):
        monkeypatch.setattr(type(stage), "global_step", step)
        radii.append(stage.radius())
    assert radii == pytest.approx([EPS * 0.1, EPS * 0.5, EPS, EPS, EPS])


class Recorded:
    """A trainer as the watch sees it."""

    def __init__(self):
        self.callback_metrics, self.should_stop, self.current_epoch = {}, False, 4


@pytest.mark.parametrize(
    ("epochs", "stops"),
    [
        ([(0.9, 0.85), (0.92, 0.8)], False),
        ([(0.9, 0.85), (0.95, 0.79)], True),  # FGSM no longer means anything
        ([(0.9, 0.85), (0.45, 0.42)], True),  # half of the best is lost
    ],
)
def test_a_collapse_stops_the_run_and_is_reported(epochs, stops):
    lines: list[str] = []
    watch, trainer = CollapseWatch(lines.append), Recorded()
    for single, several in epochs:
        trainer.callback_metrics = {"val_fgsm_accuracy": single, "val_robust_accuracy": several}
        watch.on_validation_end(trainer, nn.Identity())
    assert trainer.should_stop == stops
    assert bool(lines) == stops
    if stops:
        assert lines[0].startswith("catastrophic overfitting in epoch 4: accuracy under FGSM ")
        resumed = CollapseWatch(lines.append)
        resumed.load_state_dict(watch.state_dict())
        assert resumed.best == 0.85


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"examples": "adversarial", "cache": "memory", "shift": 0},
            "adversarial examples change at every step",
        ),
        ({"examples": "attacked"}, r"examples=attacked.*: allowed are clean, adversarial, static, noise"),
        ({"tuned": "autoencoder"}, "tuned=autoencoder: clean examples tune the decoder"),
        ({"attack_options": 3}, "attack_options=3: expected options by name, such as {steps: 3}, or null"),
        ({"early_stopping": "val_robust_accuracy"}, "needs attacked examples"),
        ({"ramp": 1.5}, "ramp=1.5: must be at least 0 and below 1"),
    ],
)
def test_bad_recipes_are_one_line(changed, line):
    with pytest.raises(ValueError, match=line):
        check(replace(Stage2Recipe(), **changed), "recipes.stage2")


def test_an_unknown_inner_attack_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'nfgsm'"):
        stage_of(attack="nfgms")


def test_trades_by_hand(batch):  # noqa: F811
    _, labels, _ = batch
    stage = TrainAdversarial(classifier(), replace(AdversarialRecipe(), trades=6.0), 0)
    clean, attacked = torch.randn(32, 10), torch.randn(32, 10)
    p, q = clean.softmax(dim=1), attacked.softmax(dim=1)
    expected = functional.cross_entropy(clean, labels) + 6 * (p * (p.log() - q.log())).sum(dim=1).mean()
    torch.testing.assert_close(stage.loss(clean, attacked, labels), expected)


def test_the_command_trains_by_the_recipe_and_watches_each_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["recipes.classifier.epochs=1", "recipes.stage1.epochs=1", "logger.pictures=0"]
    for stage in ("classifier", "1"):
        train(f"stage={stage}", *short)
    tuned = ["stage=2", "recipe@recipes.stage2=stage2_adversarial", "recipes.stage2.watched=20", "logger.pictures=0"]
    path = train(*tuned, "recipes.stage2.epochs=3", "output=whole")
    with open("whole/metrics.csv", newline="") as file:
        watched = [float(row["val_robust_accuracy"]) for row in csv.DictReader(file) if row["val_robust_accuracy"]]
    assert len(watched) == 3
    header = weights.read_header(path)
    assert header["recipe"] == asdict(replace(recipe_of("stage2_adversarial"), epochs=3, watched=20))


def recipe_of(name: str) -> Stage2Recipe:
    """The recipe that a YAML file gives."""
    from tiny import composed

    from s2snet.cli import settings

    composed_config = composed("train", f"recipe@recipes.stage2={name}", "stage=2")
    recipe = settings.train_settings(composed_config).recipe
    assert isinstance(recipe, type(Recipes().stage2))
    return recipe
