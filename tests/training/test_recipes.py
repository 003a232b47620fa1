"""The settings that all recipes share: accumulation, warm-up, averaged weights, BatchNorm in eval mode."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import train
from torch import nn

from s2snet import data, models
from s2snet.config.option import check
from s2snet.config.recipe import Recipe
from s2snet.store import weights
from s2snet.training.average import moving_average
from s2snet.training.loaders import EpochSampler, batches
from s2snet.training.stage import SCHEDULES, Stage, lr_factor


def losses(folder) -> list[float]:
    """The loss curve of a run, as metrics.csv has it."""
    with open(folder / "metrics.csv") as file:
        return [float(line["loss"]) for line in csv.DictReader(file) if line["loss"]]


def stage1(folder, *words: str, **options):
    """The state of the weights after stage 1 by plain SGD, in whose steps rounding stays small."""
    options = {"optimiser": "sgd", "lr": 0.3, "batch_norm": "eval", "epochs": 3, **options}
    path = train(
        "stage=1", f"output={folder}", *words, *(f"recipes.stage1.{key}={value}" for key, value in options.items())
    )
    return weights.load(path).state_dict()


def test_accumulated_batches_are_one_large_batch(tmp_path):
    """As the loss curve, the weights and the schedule see it; without BatchNorm's statistics, which see each batch."""
    large = stage1(tmp_path / "large", batch_size=256)
    small = stage1(tmp_path / "small", batch_size=64, accumulate=4)
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "large"), abs=1e-6)
    assert len(losses(tmp_path / "small")) == 3
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-6)
    for run in ("large", "small"):
        state = torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)
        assert state["global_step"] == state["lr_schedulers"][0]["last_epoch"] == 15
        assert state["lr_schedulers"][0]["_last_lr"] == [0.0]  # poly has come to its end
    different = stage1(tmp_path / "different", batch_size=64)
    assert any(not torch.allclose(different[key], large[key], rtol=1e-2, atol=1e-3) for key in large)


def test_an_epoch_is_whole_steps():
    assert batches(1293, 100, 1, 5) == 10  # of the 12 batches that there are
    assert batches(1293, 100, 2, 3) == 6
    assert len(EpochSampler(1293, 100, 0, 5)) == 1000
    with pytest.raises(ValueError) as error:
        batches(1293, 100, 2, 7)
    assert str(error.value) == ("accumulate=7: an optimiser step needs 1400 images and there are 1293; at most 6 here")


@pytest.mark.parametrize("schedule", sorted(SCHEDULES.keys() - {"one_cycle"}))
def test_warmup_is_a_line_up_to_the_schedules_beginning(schedule):
    factors = [lr_factor(step, 24, schedule, 4) for step in range(25)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[4:] == [SCHEDULES[schedule](step / 20) for step in range(21)]
    assert [lr_factor(step, 20, schedule, 0) for step in range(21)] == factors[4:]


def test_one_cycle_rises_and_falls_and_takes_no_other_warmup():
    factors = [lr_factor(step, 100, "one_cycle", 0) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 30) and factors[15] == pytest.approx(0.5) and factors[30] == 1.0
    assert factors[65] == pytest.approx(0.5) and factors[100] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="warmup=5: schedule=one_cycle has a warm-up of its own; use warmup=0"):
        check(replace(Recipe(), schedule="one_cycle", warmup=5), "recipes.stage1")


def test_a_run_warms_up(tmp_path):
    """One step at a third of lr is one step at lr / 3; 5 steps of warm-up before none is no run."""
    options = {"batch_size": 1293, "epochs": 2, "schedule": "constant"}
    path = tmp_path / "run"
    stage1(path, warmup=1, **options)
    state = torch.load(path / "checkpoints/last.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["_last_lr"] == [0.3]
    lower = stage1(tmp_path / "lower", **{**options, "lr": 0.15, "epochs": 1})
    first = tmp_path / "first"
    with pytest.raises(ValueError, match=r"warmup=1: must be below the 1 optimiser steps of the run"):
        stage1(first, **{**options, "warmup": 1, "epochs": 1})
    assert not first.exists()
    assert lower


def test_the_average_by_hand():
    """Floats by the formula, what does not change to the bit, counters as they are; validation sees the average."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    stage, trainer = Stage(Recipe(), 0), SimpleNamespace(global_step=0, accumulate_grad_batches=2)
    stage.trained = module
    average, expected = moving_average(0.9), None
    average.setup(trainer, stage, "fit")
    torch.manual_seed(0)
    for batch in range(8):
        with torch.no_grad():
            module[0].weight += torch.randn(2, 3)
            module[1].num_batches_tracked += 1
        trainer.global_step += batch % 2  # an optimiser step's last batch
        average.on_train_batch_end(trainer, stage, None, None, batch)
        if batch % 2:
            now = module[0].weight.detach().clone()
            expected = now if expected is None else 0.9 * expected + 0.1 * now
    bias, now = module[0].bias.detach().clone(), module[0].weight.detach().clone()
    average.on_validation_epoch_start(trainer, stage)
    torch.testing.assert_close(module[0].weight.detach(), expected)
    assert torch.equal(module[0].bias, bias)
    assert module[1].num_batches_tracked == 8
    average.on_validation_epoch_end(trainer, stage)
    assert torch.equal(module[0].weight, now)


def test_what_is_saved_and_validated_is_the_average(trained, tmp_path):
    few = {"ema": 0.8, "batch_size": 256, "epochs": 2, "early_stopping": "val_loss"}
    path = train(
        "stage=2", f"runs={trained}", f"output={tmp_path}", *(f"recipes.stage2.{key}={few[key]}" for key in few)
    )
    module = weights.load(path)
    averaged = module.state_dict()
    kept = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert all(torch.equal(tensor, kept["state_dict"][f"trained.{key}"]) for key, tensor in averaged.items())
    differ = {
        key
        for key, tensor in averaged.items()
        if not torch.equal(tensor, kept["current_model_state"][f"trained.{key}"])
    }
    assert differ and all(key.startswith("decoder.") for key in differ)
    earlier = weights.load(trained / "digits/autoencoder-segnet_small/weights.safetensors").state_dict()
    assert all(torch.equal(averaged[key], earlier[key]) for key in averaged if not key.startswith("decoder."))

    classifier = weights.load(trained / "digits/classifier-small_cnn/weights.safetensors")
    validation = data.load("digits", size=16).validation
    with torch.no_grad():
        logits = models.Defended(module, classifier)(validation.images)
    with open(tmp_path / "metrics.csv") as file:
        logged = [float(line["val_loss"]) for line in csv.DictReader(file) if line["val_loss"]]
    assert min(logged) == pytest.approx(nn.functional.cross_entropy(logits, validation.labels).item(), abs=1e-5)


@pytest.mark.parametrize("stage, recipe", [("1", "stage1"), ("adversarial", "adversarial")])
@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_statistics_stay_as_they_are(stage, recipe, batch_norm, tmp_path):
    words = [f"recipes.{recipe}.{word}" for word in ("epochs=1", "batch_size=256", f"batch_norm={batch_norm}")]
    module = weights.load(train(f"stage={stage}", f"output={tmp_path}", *words))
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        still = not norm.running_mean.any() and (norm.running_var == 1).all() and norm.num_batches_tracked == 0
        assert still == (batch_norm == "eval")
        assert norm.bias.any()  # it learns all the same
