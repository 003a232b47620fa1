"""Launchers: submitit started on this machine, SLURM composed, and the message if a launcher would be ignored."""

import json

import pytest
from hydra import compose, initialize_config_dir
from tiny import TINY, run_script

from s2snet.cli.conf_dir import conf_dir

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")

QUICK = ["images=8", "attack=[fgsm]", "threat=[gray_box]", "defence=[none]", "samples=0"]


def test_submitit_local_runs_the_job_in_a_process_of_its_own(trained, tmp_path):
    words = [*TINY, *QUICK, f"runs={trained}", "output=r", "hydra.sweep.dir=sweep"]
    done = run_script("evaluate", "-m", "hydra/launcher=submitit_local", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "r/run.json").read_text())
    assert run["command"].startswith("python evaluate.py data.size=16")
    assert {cell["status"] for cell in run["cells"]} == {"done"}
    logs = list((tmp_path / "sweep/.submitit").glob("*/*.out"))
    assert logs and any("table:" in log.read_text() for log in logs)


def test_a_launcher_without_m_is_refused(tmp_path):
    done = run_script("evaluate", "hydra/launcher=submitit_local", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: hydra/launcher=submitit_local has no effect without -m; add -m\n"


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_slurm_asks_for_a_task_per_device(command):
    words = ["experiment=slurm", "trainer.devices=8", "trainer.num_nodes=4", "hydra.launcher.partition=gpu"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, words, return_hydra_config=True)
    launcher = config.hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (4, 8, 8)
    assert launcher._target_.endswith("SlurmLauncher") and launcher.partition == "gpu"
    assert str(config.hydra.mode).endswith("MULTIRUN") and config.trainer.accelerator == "gpu"


def test_slurm_away_from_a_cluster_is_one_line(tmp_path):
    done = run_script("train", "experiment=slurm", "stage=1", "runs=r", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: SLURM not found (no srun)")
