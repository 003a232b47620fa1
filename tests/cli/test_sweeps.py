"""Sweeps: optuna looks for the lowest validation loss through Hydra, and the wandb file names settings that exist."""

import csv
import math
import re

import pytest
import yaml
from tiny import ROOT, TINY, composed, run_python, run_script

from s2snet.cli.settings import train_settings


def test_optuna_sweeps_stage_1_by_its_validation_loss(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    few = [
        "recipes.stage1.epochs=1",
        "recipes.stage1.optimiser=sgd",
        "recipes.stage1.batch_size=choice(512)",
        "recipes.stage1.lr=choice(1e-3,1e-1,1e30)",  # the last diverges, and must not end the sweep
        "hydra.sweeper.n_trials=4",
    ]
    done = run_script("train", "-m", *TINY, "experiment=sweep", *few, "logger.pictures=0", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    losses = {}
    for metrics in tmp_path.glob("runs/sweep/*/metrics.csv"):
        with metrics.open() as file:
            losses[metrics.parent.name] = float(list(csv.DictReader(file))[-1]["val_loss"])
    assert "lr1e+30-batch512" in losses and len(losses) > 1  # by the seed in sweep.yaml
    assert math.isnan(losses.pop("lr1e+30-batch512"))
    found = yaml.safe_load((tmp_path / "runs/optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(min(losses.values()))
    assert f"lr{found['best_params']['recipes.stage1.lr']}-batch512" == min(losses, key=losses.get)


def test_without_the_extra_a_sweep_is_one_line():
    program = (
        "import pkgutil, sys; sys.argv = ['train.py', '-m', 'experiment=sweep']; walk = pkgutil.walk_packages\n"
        "pkgutil.walk_packages = lambda *w, **k: (m for m in walk(*w, **k) if 'optuna' not in m.name)\n"
        "from s2snet.cli.train import main; main()"
    )
    done = run_python("-c", program)
    assert done.returncode == 1
    assert done.stderr == "error: hydra/sweeper=optuna: not installed; pip install -e .[sweep]\n"


def test_the_wandb_sweep_names_settings_that_exist(monkeypatch):
    sweep = yaml.safe_load((ROOT / "scripts/sweep_wandb.yaml").read_text())
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert (ROOT / sweep["program"]).is_file()
    *start, last = sweep["command"]
    assert (start[:3], last) == (["${env}", "python", "${program}"], "${args_no_hyphens}")
    for end in ("min", "max"):
        args = [
            f"{key}={given[end] if end in given else given['values'][0 if end == 'min' else -1]}"
            for key, given in sweep["parameters"].items()
        ]
        settings = train_settings(composed("train", *start[3:], *args))
        assert settings.output == "runs/sweep/abc"
        assert settings.logger.name == "wandb"
        assert sweep["metric"]["name"] in settings.recipe.metrics
    assert sweep["metric"]["goal"] == "minimize" and sweep["metric"]["name"].endswith("loss")


def test_both_sweeps_look_for_the_same():
    ours = yaml.safe_load((ROOT / "conf/experiment/sweep.yaml").read_text())
    theirs = yaml.safe_load((ROOT / "scripts/sweep_wandb.yaml").read_text())["parameters"]
    assert set(theirs) == set(ours["hydra"]["sweeper"]["params"])
    for key, text in ours["hydra"]["sweeper"]["params"].items():
        numbers = [float(number) for number in re.findall(r"[\d.]+(?:e-?\d+)?", text)]
        given = theirs[key]
        assert numbers == pytest.approx(given["values"] if "values" in given else [given["min"], given["max"]])
