"""Around every test: one thread, a folder of its own; and weights of every stage, trained once."""

from pathlib import Path

import pytest
import torch
from tiny import ROOT, train


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Tests run in an empty folder, so that nothing passes because the repository happens to be there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for processes of their own, whether the package is installed or not
    for variable in ("S2SNET_DATA", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A `runs` folder in which every stage was trained on tiny networks for a few epochs. Not to be written to."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
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
    return runs
