"""Weights & Biases: offline it works and stays in the run's folder; online without a login it is one line."""

import pytest
from tiny import TINY, run_script, train

FEW = ["stage=1", "output=run", "logger=wandb", "recipes.stage1.epochs=1", "recipes.stage1.batch_size=256"]


def test_offline_leaves_everything_below_the_runs_folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "work"
    folder.mkdir()
    done = run_script("train", *TINY, *FEW, folder=folder, HOME=str(home), WANDB_MODE="offline", WANDB_SILENT="true")
    assert done.returncode == 0, done.stderr[-2000:]
    run = folder / "run"
    (kept,) = (run / "wandb").glob("offline-run-*/*.wandb")
    logged = kept.read_bytes()
    assert b"val_psnr" in logged
    assert b"python train.py" in logged or b"batch_size" in logged  # the config
    assert b"weights" in logged  # the artifact's type
    staged = [path for path in run.rglob("*") if path.is_file() and "wandb" in path.parts and path != kept]
    weights = (run / "weights.safetensors").read_bytes()
    assert any(path.read_bytes() == weights for path in staged)
    assert (run / "metrics.csv").is_file()
    assert {path.name for path in folder.iterdir()} == {"run"}
    left = [path for path in home.rglob("*") if path.is_file() and "matplotlib" not in path.parts]
    assert not [path for path in left if path.stat().st_size > 10_000], left


def test_online_without_a_login_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    with pytest.raises(ValueError) as error:
        train(*FEW, "logger.mode=online")
    assert str(error.value) == (
        "logger.mode=online: no wandb login; run `wandb login`, set WANDB_API_KEY, or take logger.mode=offline"
    )


def test_unknown_modes_are_one_line(monkeypatch):
    with pytest.raises(ValueError, match=r"logger.mode=on: allowed are online, offline, disabled"):
        train(*FEW, "logger.mode=on")
    monkeypatch.setenv("WANDB_MODE", "nope")
    with pytest.raises(ValueError, match=r"logger.mode=nope: allowed are online, offline, disabled"):
        train(*FEW)
