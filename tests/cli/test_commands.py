"""The commands as a user types them, as processes in a folder that is not the repository."""

import json
import subprocess
import sys

import pytest
import yaml
from tiny import ROOT, TINY, composed, run_python, run_script

from s2snet.cli.help import settings_help
from s2snet.store import weights

FEW = [f"recipes.{name}.epochs=1" for name in ("classifier", "stage1", "stage2", "adversarial")]


def test_a_sweep_over_stages_then_an_evaluation(tmp_path):
    """The main job: each stage finds what the one before left; the evaluation finds all."""
    done = run_script("train", "-m", "stage=classifier,1,2", *TINY, *FEW, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    runs = tmp_path / "runs/digits"
    assert {path.name for path in runs.iterdir()} == {
        "classifier-small_cnn", "autoencoder-segnet_small", "s2snet-segnet_small-small_cnn"
    }  # fmt: skip
    tuned = weights.read_header(runs / "s2snet-segnet_small-small_cnn/weights.safetensors")
    assert tuned["classifier"] == weights.read_header(runs / "classifier-small_cnn/weights.safetensors")["fingerprint"]
    assert tuned["command"].startswith("python train.py ")
    config = yaml.safe_load((runs / "s2snet-segnet_small-small_cnn/config.yaml").read_text())
    assert config["stage"] == "2"
    assert "${" not in json.dumps(config)

    attacks = ["images=20", "attack=[fgsm]", "budgets.linf=[8/255]", "budgets.l2=[]", "samples=2"]
    done = run_script("evaluate", *TINY, *attacks, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "results/digits"
    for name in ("config.yaml", "run.json", "rows.parquet", "table.csv", "timing.jsonl", "report.html"):
        assert (folder / name).is_file(), name
    assert "table:  results/digits/table.csv" in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "report: results/digits/report.html", "audit:  results/digits/audit.html"
    ]  # fmt: skip
    assert "left out: adversarial: no weights at runs/digits/adversarial-small_cnn/weights.safetensors" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "results"}


@pytest.mark.parametrize("script", ["train", "evaluate", "analyse"])
@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"]])
def test_help_and_config_import_no_torch(script, words):
    program = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print('heavy:', [name for name in ('torch', 'numpy', 'sklearn', 'pyarrow') if name in sys.modules])"
    )
    done = run_python("-c", program, str(ROOT / f"{script}.py"), *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"
    shown = {"--help": "== Groups (group=name) ==", "--cfg": "data:"}[words[0]]
    assert shown in done.stdout


def test_help_explains_settings_and_options_of_choices():
    """From the dataclasses and from the comments in conf/, with dollars as Hydra's template needs them."""
    lines = settings_help(composed("train")).splitlines()
    for line in (
        "stage: 1 # classifier, 1, 2, adversarial",
        "  size: 32 # pixels per side, resized from 8",
        "  channels: $${data.channels}",
        "    warmup: 0 # steps in which lr rises linearly, before the schedule",
        "  progress: true # show progress bars",
        "output: null # this run's folder, instead of the one below `runs`",
    ):
        assert line in lines, line
    assert "    steps: 40" in settings_help(composed("evaluate", "attack=[pgd]")).splitlines()


def test_stage_is_a_number_or_a_word():
    from s2snet.cli.settings import train_settings

    for word in ("stage=1", "stage='1'", 'stage="1"'):
        assert train_settings(composed("train", word)).stage == "1"
    assert train_settings(composed("train", "stage=classifier")).stage == "classifier"


def test_budgets_are_fractions_or_numbers():
    from s2snet.cli.settings import evaluate_settings

    words = ["budgets.linf=[8/255,0.1,0,8/255]", "budgets.l2=[2,0.5]"]
    settings = evaluate_settings(composed("evaluate", *words))
    assert settings.budgets == {"linf": [8 / 255, 0.1, 0.0], "l2": [2.0, 0.5]}


@pytest.mark.parametrize("script", ["train", "evaluate", "analyse"])
def test_what_was_written_to_a_closed_pipe_is_no_error(script):
    done = subprocess.run(
        f"{sys.executable} {ROOT / script}.py --cfg job | head -1", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert done.stdout
