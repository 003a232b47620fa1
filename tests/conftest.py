"""Give every test one thread and an empty folder, and all tests weights of every stage, trained once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

# One thread for each of pytest-xdist's processes and for theirs; read when the libraries are imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import torch
from tiny import ROOT, train

settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Run each test in an empty folder, so that none passes because it runs in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for processes of their own, whether the package is installed or not
    for variable in ("S2SNET_DATA", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function (name, make) -> folder that fills a folder once for all of pytest-xdist's processes.

    The first process that asks for the name calls `make(folder)`, the others wait and get the same folder.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def shared(name: str, make: Callable[[Path], object]) -> Path:
        folder, filled = base / name, base / f"{name}.filled"
        with FileLock(base / f"{name}.lock"):
            if not filled.is_file():
                folder.mkdir()
                make(folder)
                filled.touch()
        return folder

    return shared


@pytest.fixture(scope="session")
def trained(shared) -> Path:
    """Return a `runs` folder in which every stage was trained on tiny networks for a few epochs. Not to be changed."""
    return shared("trained", _train) / "runs"


def _train(folder: Path) -> None:
    runs = folder / "runs"
    few = [
        "recipes.classifier.epochs=6",
        "recipes.classifier.lr=0.02",
        "recipes.adversarial.epochs=1",
        "recipes.stage1.epochs=3",
        "recipes.stage1.lr=0.02",
        "recipes.stage2.epochs=2",
    ]
    for stage in ("classifier", "adversarial", "1", "2"):
        train(f"stage={stage}", f"runs={runs}", *few)
