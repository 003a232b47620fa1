"""Log to metrics.csv, and to Weights & Biases in addition. What wandb shows is on disk too."""

import csv
import importlib.util
import math
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only

from s2snet.config.runtime import Logger as LoggerConfig

METRICS = "metrics.csv"
STEP = "trainer/global_step"  # the axis of wandb's curves
FINISH_TIMEOUT_S = 120  # for uploads at the end of a run; everything is on disk anyway


class Metrics(CSVLogger):
    """The logger of metrics.csv. A resumed run appends to the file, which Lightning would delete."""

    @property
    def experiment(self):
        path = Path(self.log_dir) / METRICS
        fresh = self._experiment is None
        earlier = path.read_text() if fresh and path.is_file() else ""
        writer = super().experiment
        if earlier:
            path.write_text(earlier)
            writer.metrics_keys = earlier.partition("\n")[0].strip().split(",")
        return writer


class Mirror(Logger):
    """A wandb run that shows what is on disk anyway, so that none of its failures may end a training.

    The first failure is printed in one line; nothing is sent after it. The run starts with the first logged value, on
    rank zero only; `close` ends it.
    """

    name = "wandb"

    def __init__(self, options: dict[str, Any], say: Callable[[str], None]):
        super().__init__()
        self.options, self.say = options, say  # options: of wandb.init
        self.run = None
        self.broken = False

    @property
    def version(self) -> str:
        return self.options["id"]

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._try("log", lambda run: run.log(metrics if step is None else {**metrics, STEP: step}))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._try("log the settings", lambda run: run.config.update(dict(params), allow_val_change=True))

    @rank_zero_only
    def log_picture(self, name: str, path: Path, step: int) -> None:
        def send(run) -> None:
            import wandb

            run.log({name: wandb.Image(str(path)), STEP: step})

        self._try("log a picture", send)

    @rank_zero_only
    def log_weights(self, path: Path, facts: dict[str, Any]) -> None:
        """Log the weights file as an artifact, with its header as metadata."""

        def send(run) -> None:
            import wandb

            artifact = wandb.Artifact(path.parent.name, type="weights", metadata=facts)
            artifact.add_file(str(path))
            run.log_artifact(artifact)

        self._try("log the weights", send)

    @rank_zero_only
    def close(self) -> None:
        run, self.run = self.run, None
        if run is not None:  # also a broken one: else wandb's own hook waits for it when the process ends
            try:
                run.finish()
            except Exception as error:
                self._broke("finish", error)

    def _try(self, what: str, send: Callable[[Any], object]) -> None:
        if self.broken:
            return
        try:
            if self.run is None:
                self.run = self._start()
            send(self.run)
        except Exception as error:
            self._broke(what if self.run else "start", error)

    def _broke(self, what: str, error: Exception) -> None:
        if not self.broken:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self.say(f"wandb could not {what} ({reason}); {METRICS} and the pictures are still written")
        self.broken = True

    def _start(self):
        import wandb

        run = wandb.init(**self.options)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run


def loggers(logger: LoggerConfig, folder: Path, config: dict[str, Any], say: Callable[[str], None]) -> list[Logger]:
    """Return the loggers of one run. ValueError, in one line, if wandb cannot run as asked."""
    started: list[Logger] = [Metrics(folder, name="", version="")]
    if logger.name == "wandb":
        mode = os.environ.get("WANDB_MODE", logger.mode)
        started.append(Mirror(_wandb(logger.project, mode, folder, config), say))
    return started


def _wandb(project: str, mode: str, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of wandb.init."""
    if importlib.util.find_spec("wandb") is None:
        raise ValueError("logger=wandb: wandb is not installed; pip install wandb, or use logger=csv")
    if mode not in ("online", "offline", "disabled"):
        raise ValueError(f"logger.mode={mode}: allowed are online, offline, disabled")
    if mode == "online" and not _logged_in():
        raise ValueError(
            "logger.mode=online: no wandb login; run `wandb login`, set WANDB_API_KEY, or use logger.mode=offline"
        )
    # wandb would stage artifacts below the user's home; keep them in the run's folder.
    for variable, name in (("WANDB_DATA_DIR", "data"), ("WANDB_CACHE_DIR", "cache")):
        os.environ.setdefault(variable, str((folder / "wandb" / name).resolve()))
    return {
        "project": project,
        "name": folder.name,
        "id": _run_id(folder),
        "dir": str(folder),
        "config": config,
        "mode": mode,
        "resume": "allow" if mode == "online" else None,
        "reinit": "finish_previous",  # one process may train several times
        "settings": {"finish_timeout": FINISH_TIMEOUT_S, "finish_timeout_raises": True},
    }


def _run_id(folder: Path) -> str:
    """Return the wandb id of the run in this folder, kept there so that a resumed run continues the same curve.

    A wandb agent has already given its run an id.
    """
    file = folder / "wandb_id.txt"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8])
    return file.read_text().strip()


def _logged_in() -> bool:
    import netrc
    from urllib.parse import urlparse

    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(wandb.setup().settings.base_url).hostname
    try:
        return netrc.netrc().authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def mirrors(started: list[Logger]) -> list[Mirror]:
    """Return the wandb runs among the loggers: one or none."""
    return [logger for logger in started if isinstance(logger, Mirror)]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics.csv, each with the columns that have a number."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]


def direction(metric: str) -> str:
    """Return min if a smaller value of the metric is better, else max."""
    return "min" if metric.endswith(("loss", "error")) else "max"


def kept_value(path: Path, metric: str, monitor: str | None) -> float:
    """Return a validation metric of the weights that a run kept, from its metrics.csv.

    These are the weights of the last epoch, or with early stopping of the epoch with the best `monitor`. A run that
    diverged is worse than any other: infinite, since a sweeper refuses NaN. ValueError, in one line, if the metric was
    not measured.
    """
    rows = [row for row in read_metrics(path) if metric in row]
    if not rows:
        raise ValueError(f"objective={metric}: {path} has no such column")

    def value(row: dict[str, float], name: str) -> float:
        worst = math.inf if direction(name) == "min" else -math.inf
        return worst if math.isnan(row[name]) else row[name]

    if monitor is None:
        return value(rows[-1], metric)
    best = {"min": min, "max": max}[direction(monitor)]
    return value(best(rows, key=lambda row: value(row, monitor)), metric)
