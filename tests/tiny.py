"""Commands on tiny networks, in this process or in one of their own: what tests of several rooms share."""

import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from s2snet.cli import settings as cli_settings
from s2snet.cli.conf_dir import conf_dir

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "data.size=16",
    "classifier.widths=[8,16]",
    "autoencoder.widths=[4,8]",
    "autoencoder.convs=[1,1]",
    "trainer.accelerator=cpu",
    "trainer.progress=false",
]

cli_settings.register()


def composed(name: str, *overrides: str):
    """The config that `python NAME.py OVERRIDES` composes."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, list(overrides))


def train(*overrides: str) -> Path:
    """`python train.py OVERRIDES` on tiny networks, in this process; the path of the weights file."""
    from s2snet.training.from_config import train

    config = composed("train", *TINY, *overrides)
    return train(cli_settings.train_settings(config), OmegaConf.to_yaml(config, resolve=True), "python train.py")


def evaluate(*overrides: str, explicit: bool = False) -> tuple[Path, list[str]]:
    """`python evaluate.py OVERRIDES` without the report, in this process; the result folder and its messages."""
    from s2snet.audit import checks
    from s2snet.audit.probes.measure import measure
    from s2snet.evaluation.run import run

    job, messages = job_of(*overrides, explicit=explicit)
    folder = run(job, messages.append, measure)
    checks.write(folder)
    return folder, messages


def job_of(*overrides: str, explicit: bool = False):
    """The job of `python evaluate.py OVERRIDES` on tiny networks, and the messages while its parts were found."""
    from s2snet.evaluation.job import job_of

    config = composed("evaluate", *TINY, *overrides)
    messages: list[str] = []
    settings, yaml = cli_settings.evaluate_settings(config), OmegaConf.to_yaml(config, resolve=True)
    return job_of(settings, yaml, "python evaluate.py", explicit, messages.append), messages


def forked(work: Callable[[], object]) -> int:
    """Runs `work` in a forked process and returns its wait status: 0, or the signal that ended it, or 256."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, from Python 3.12 on
        pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def kill_self() -> None:
    """End this process as a power cut would: no handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def run_script(name: str, *words: str, folder: Path | str = ".", timeout: int = 120, **environment: str):
    """`python .../NAME.py WORDS` as a process of its own, in `folder`."""
    return run_python(str(ROOT / f"{name}.py"), *words, folder=folder, timeout=timeout, **environment)


def run_python(*words: str, folder: Path | str = ".", timeout: int = 120, **environment: str):
    """`python WORDS` as a process of its own that finds the package."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
