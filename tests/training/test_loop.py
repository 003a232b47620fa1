"""The loop around the stages: what a run leaves, early stopping, several processes, missing earlier stages."""

import csv
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import TINY, run_script, train

from s2snet.store import weights


def test_a_run_leaves_config_metrics_checkpoint_and_weights(trained):
    folder = trained / "digits/s2snet-segnet_small-small_cnn"
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "hparams.yaml", "metrics.csv", "checkpoints", "pictures", "curves.png", "weights.safetensors"
    }  # fmt: skip
    lines = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert {"epoch", "step", "loss", "val_loss", "val_accuracy"} <= set(lines[0])
    assert [float(line["val_accuracy"]) for line in lines if line["val_accuracy"]]
    header = weights.read_header(folder / "weights.safetensors")
    parts = {"classifier": "classifier-small_cnn", "autoencoder": "autoencoder-segnet_small"}
    for part, run in parts.items():
        assert header[part] == weights.read_header(trained / f"digits/{run}/weights.safetensors")["fingerprint"]
    assert (header["kind"], header["stage"]) == ("s2snet", "2")
    assert header["input"] == {"range": [0, 1], "channels": 1, "size": 16}
    assert header["data"]["train"] == 1293
    assert 0 <= header["metrics"]["accuracy"] <= 1
    assert header["seed"] == 0
    json.dumps(header)


def test_the_header_states_the_accuracy_over_all_test_images(trained):
    from s2snet import data

    module = weights.load(trained / "digits/classifier-small_cnn/weights.safetensors")
    test = data.load("digits", size=16).test
    with torch.no_grad():
        share = (module(test.images).argmax(dim=1) == test.labels).double().mean().item()
    assert module.header["metrics"]["accuracy"] == pytest.approx(share, abs=1e-6)
    assert share > 0.5


def test_early_stopping_keeps_the_best():
    """Weights that diverge after the best epoch: the best are kept, and the run ends `patience` later."""
    path = train(
        "stage=adversarial",
        "output=run",
        *(
            f"recipes.adversarial.{key}"
            for key in (
                "epochs=30",
                "batch_size=256",
                "optimiser=sgd",
                "momentum=0.95",
                "lr=0.5",
                "schedule=constant",
                "eps=0.05",
                "early_stopping=val_adversarial_error",
                "patience=2",
            )
        ),
    )
    with open("run/metrics.csv") as file:
        lines = [line for line in csv.DictReader(file) if line["val_adversarial_error"]]
    errors = [float(line["val_adversarial_error"]) for line in lines]
    best = errors.index(min(errors))
    assert len(errors) == best + 3 < 30
    kept = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert kept["epoch"] == best < last["epoch"]
    state = weights.load(path).state_dict()
    differ = [key for key in state if not torch.equal(state[key], kept["state_dict"][f"trained.{key}"])]
    assert not differ
    assert any(not torch.equal(state[key], last["state_dict"][f"trained.{key}"]) for key in state)


def test_two_processes_train_as_one():
    """The launcher starts the script again for the second rank; both see one folder, one of them writes.

    Without BatchNorm's statistics, which see a rank's own batch, curve and weights are those of one process whose
    batch is as large as the two. Plain SGD, in whose steps rounding stays small.
    """
    words = [word for word in TINY if not word.startswith("trainer.accelerator")]
    options = {"epochs": 3, "optimiser": "sgd", "lr": 0.3, "batch_norm": "eval", "shift": 2}
    recipe = [f"recipes.stage1.{key}={value}" for key, value in options.items()]
    words = ["stage=1", *words, *recipe]
    alone = weights.load(train(*words, "output=alone", "recipes.stage1.batch_size=256")).state_dict()
    words += ["trainer=ddp_cpu", "trainer.devices=2", "recipes.stage1.batch_size=128"]
    done = run_script("train", "output=run", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    header = weights.load("run/weights.safetensors").header
    assert header["metrics"]["loss"] > 0
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 15  # of 2 x 128 images: what one process does with batches of 256
    curves = []
    for folder in ("alone", "run"):
        with open(f"{folder}/metrics.csv") as file:
            curves.append([float(line["loss"]) for line in csv.DictReader(file) if line["loss"]])
    assert len(curves[0]) == 3
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    torch.testing.assert_close(weights.load("run/weights.safetensors").state_dict(), alone, rtol=1e-4, atol=1e-6)


def test_a_slurm_jobs_tasks_train_together():
    """Two tasks as srun starts them, in the mode in which a launcher runs a job; SLURM's variables distinguish them."""
    words = [word for word in TINY if not word.startswith("trainer.accelerator")]
    words += ["stage=1", "trainer=ddp_cpu", "output=run", "recipes.stage1.epochs=1", "recipes.stage1.batch_size=128"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"JOB_ID": "7", "JOB_NAME": "s2snet", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NODEID": "0"}
    job |= {"NODELIST": "127.0.0.1"}

    def task(number: int):
        own = {"PROCID": str(number), "LOCALID": str(number)}
        marks = {f"SLURM_{name}": value for name, value in {**job, **own}.items()}
        return run_script("train", "-m", *words, MASTER_PORT=str(port), **marks)

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(task, (0, 1))
    assert first.returncode == second.returncode == 0, first.stderr[-2000:] + second.stderr[-2000:]
    assert "run/weights.safetensors: loss" in first.stderr
    assert "run" not in second.stderr
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 5


@pytest.mark.parametrize(
    "missing, stage, hint",
    [
        ("autoencoder", "1", ""),
        ("classifier", "classifier", ", classifier.weights=FILE, or classifier.weights=random (untrained)"),
    ],
)
def test_stage_2_says_which_stage_it_needs(trained, missing, stage, hint):
    other = {"autoencoder": "classifier", "classifier": "autoencoder"}[missing]
    given = next((trained / "digits").glob(f"{other}-*")) / "weights.safetensors"
    with pytest.raises(ValueError) as error:
        train("stage=2", f"from_{other}={given}")
    run = {"autoencoder": "autoencoder-segnet_small", "classifier": "classifier-small_cnn"}[missing]
    assert str(error.value) == (
        f"stage 2 needs the weights of stage={stage}; none at runs/digits/{run}/weights.safetensors. "
        f"Run `python train.py stage={stage}` first, or give from_{missing}=FILE{hint}"
    )


def test_stage_2_says_which_weights_it_took(trained, capfd):
    train("stage=2", f"runs={trained}", "output=again", "recipes.stage2.epochs=1", "recipes.stage2.batch_size=1293")
    printed = capfd.readouterr().err
    for run in ("autoencoder-segnet_small", "classifier-small_cnn"):
        path = trained / f"digits/{run}/weights.safetensors"
        assert f"{run.partition('-')[0]}: {path} (stage" in printed
        assert weights.read_header(path)["fingerprint"][:12] in printed


def test_stage_2_refuses_weights_of_another_architecture(trained):
    with pytest.raises(ValueError) as error:
        train("stage=2", f"runs={trained}", "output=again", "autoencoder.widths=[4,9]")
    path = trained / "digits/autoencoder-segnet_small/weights.safetensors"
    assert str(error.value) == (
        f"{path}: expected widths=[4, 9], got [4, 8]. Train stage=1 with these settings, or give "
        f"from_autoencoder={path} to use it as it is"
    )


def test_a_given_file_is_taken_as_it_is(trained):
    path = trained / "digits/autoencoder-segnet_small/weights.safetensors"
    few = ["recipes.stage2.epochs=1", "recipes.stage2.batch_size=1293"]
    words = [f"runs={trained}", "output=again", "autoencoder.widths=[4,9]", f"from_autoencoder={path}", *few]
    assert weights.load(train("stage=2", *words)).config["widths"] == [4, 8]
