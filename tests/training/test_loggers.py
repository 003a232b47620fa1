"""Weights & Biases: offline it works and stays in the run's folder; what fails there is one line and ends nothing."""

import math
from types import SimpleNamespace

import pytest
import wandb
from tiny import TINY, run_script, train

from s2snet.config.runtime import Logger
from s2snet.training.loggers import kept_value, loggers

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
    assert b"fingerprint" in logged  # and its metadata
    media = {path.name.partition("_")[0] for path in (run / "wandb").glob("offline-run-*/files/media/images/*.png")}
    assert media == {"images", "curves"}
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
        "logger.mode=online: no wandb login; run `wandb login`, set WANDB_API_KEY, or use logger.mode=offline"
    )


def test_unknown_modes_are_one_line(monkeypatch):
    with pytest.raises(ValueError, match=r"logger.mode=on: allowed are online, offline, disabled"):
        train(*FEW, "logger.mode=on")
    monkeypatch.setenv("WANDB_MODE", "nope")
    with pytest.raises(ValueError, match=r"logger.mode=nope: allowed are online, offline, disabled"):
        train(*FEW)


class Failing:
    """A wandb run whose call of that name fails, and that notes what was called."""

    def __init__(self, bad: str):
        self.bad, self.called = bad, []
        self.config = self

    def _call(self, name: str) -> None:
        self.called.append(name)
        if name == self.bad:
            raise wandb.errors.CommError(f"{name}: the line\nis dead")

    def update(self, *_, **__):
        self._call("config")

    def define_metric(self, *_, **__):
        self._call("define")

    def log(self, metrics):
        self._call("picture" if set(metrics) & {"images", "curves"} else "log")

    def log_artifact(self, artifact):
        self._call("artifact")

    def finish(self):
        self._call("finish")


@pytest.mark.parametrize("bad", ["init", "config", "log", "picture", "artifact", "finish", None])
def test_what_fails_at_wandb_ends_nothing_and_is_one_line(bad, tmp_path, monkeypatch, capfd):
    run = Failing(bad)

    def init(**settings):
        if bad == "init":
            raise wandb.errors.CommError("init: the line\nis dead")
        return run

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "Artifact", lambda *_, **__: SimpleNamespace(add_file=lambda path: None))
    path = train(*FEW)
    assert path.is_file()
    assert "val_psnr" in (path.parent / "metrics.csv").read_text()
    assert {"pictures", "curves.png"} <= {left.name for left in path.parent.iterdir()}
    lines = [line for line in capfd.readouterr().err.splitlines() if "wandb" in line]
    if bad is None:
        assert not lines
        assert {"config", "log", "picture", "artifact", "finish"} <= set(run.called)
        return
    (line,) = lines
    assert f"{bad}: the line is dead" in line
    if bad != "init":
        assert run.called[-1] == "finish"  # or wandb would wait for the dead run when the process ends
        assert set(run.called[run.called.index(bad) :]) == {bad, "finish"}


def test_a_wandb_agents_run_keeps_its_id(tmp_path, monkeypatch):
    def id_in(folder: str) -> str:
        settings = Logger(name="wandb", project="p", mode="offline")
        return loggers(settings, tmp_path / folder, {}, say=print)[1].version

    monkeypatch.setenv("WANDB_DATA_DIR", "data")  # else it stays set for other tests
    monkeypatch.setenv("WANDB_CACHE_DIR", "cache")
    monkeypatch.setenv("WANDB_RUN_ID", "from1agent")
    assert id_in("a") == "from1agent"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert id_in("a") == "from1agent"  # kept in the folder
    assert id_in("b") not in ("from1agent", id_in("c"))


def test_the_value_of_a_run_is_that_of_the_weights_it_kept(tmp_path):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(
        "epoch,step,loss,val_loss,val_psnr\n0,9,0.5,,\n0,9,,0.3,20\n1,19,,0.2,24\n2,29,,0.4,22\n2,30,0.1,,\n"
    )
    assert kept_value(metrics, "val_loss", None) == 0.4
    assert kept_value(metrics, "val_loss", "val_loss") == 0.2
    assert kept_value(metrics, "val_psnr", "val_loss") == 24
    assert kept_value(metrics, "val_loss", "val_psnr") == 0.2
    metrics.write_text("epoch,step,val_loss,val_psnr\n0,9,0.3,20\n1,19,nan,nan\n")
    assert kept_value(metrics, "val_loss", None) == math.inf  # diverged: the worst there is
    assert kept_value(metrics, "val_psnr", None) == -math.inf
    assert kept_value(metrics, "val_loss", "val_loss") == 0.3
    with pytest.raises(ValueError, match=r"objective=val_accuracy: .*metrics.csv has no such column"):
        kept_value(metrics, "val_accuracy", None)
