"""Loggers: metrics.csv always, Weights & Biases beside it. What wandb shows is on disk too."""

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

METRICS = "metrics.csv"
STEP = "trainer/global_step"  # the axis of wandb's curves
FINISH_TIMEOUT_S = 120  # how long the end of a run waits for uploads; what is left is on disk


class Metrics(CSVLogger):
    """metrics.csv; a resumed run goes on in the one that is there, which Lightning would delete."""

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
    """A wandb run that shows what is on disk anyway, so nothing of it may end a training.

    The first call that fails is said in one line; after that nothing is sent. The run starts with the first thing
    logged, on rank zero only; `close` ends it.
    """

    name = "wandb"

    def __init__(self, settings: dict[str, Any], say: Callable[[str], None]):
        super().__init__()
        self.settings, self.say = settings, say
        self.run = None
        self.broken = False

    @property
    def version(self) -> str:
        return self.settings["id"]

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
        """The weights file as an artifact, its header as the artifact's metadata."""

        def send(run) -> None:
            import wandb

            artifact = wandb.Artifact(path.parent.name, type="weights", metadata=facts)
            artifact.add_file(str(path))
            run.log_artifact(artifact)

        self._try("log the weights", send)

    @rank_zero_only
    def close(self) -> None:
        run, self.run = self.run, None
        if run is not None:  # broken or not: else wandb's own hook waits for it when the process ends
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
            self.say(f"wandb could not {what} ({reason}); {METRICS} and the pictures go on without it")
        self.broken = True

    def _start(self):
        import wandb

        run = wandb.init(**self.settings)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run


def loggers(settings, folder: Path, config: dict[str, Any], say: Callable[[str], None]) -> list[Logger]:
    """The loggers of one run. ValueError in one line where wandb cannot run as asked."""
    found: list[Logger] = [Metrics(folder, name="", version="")]
    if settings.name == "wandb":
        mode = os.environ.get("WANDB_MODE", settings.mode)
        found.append(Mirror(_wandb(settings.project, mode, folder, config), say))
    return found


def _wandb(project: str, mode: str, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What wandb.init is called with."""
    if importlib.util.find_spec("wandb") is None:
        raise ValueError("logger=wandb: wandb is not installed; pip install wandb, or take logger=csv")
    if mode not in ("online", "offline", "disabled"):
        raise ValueError(f"logger.mode={mode}: allowed are online, offline, disabled")
    if mode == "online" and not _logged_in():
        raise ValueError(
            "logger.mode=online: no wandb login; run `wandb login`, set WANDB_API_KEY, or take logger.mode=offline"
        )
    # wandb would stage artifacts below the user's home; what belongs to a run lies with the run.
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
        "reinit": "finish_previous",  # one process may train several runs
        "settings": {"finish_timeout": FINISH_TIMEOUT_S, "finish_timeout_raises": True},
    }


def _run_id(folder: Path) -> str:
    """The wandb id of the run in this folder, kept beside it so that a resumed run goes on in the same curve.

    A wandb agent has given its run an id already.
    """
    kept = folder / "wandb_id.txt"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8])
    return kept.read_text().strip()


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


def mirrors(found: list[Logger]) -> list[Mirror]:
    """The wandb runs among the loggers: one or none."""
    return [logger for logger in found if isinstance(logger, Mirror)]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the columns that it has a number in."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]


def direction(metric: str) -> str:
    """Whether less of a metric is better (min) or more (max)."""
    return "min" if metric.endswith(("loss", "error")) else "max"


def kept_value(path: Path, metric: str, monitor: str | None) -> float:
    """What a validation metric was for the weights that a run kept, from its metrics.csv.

    Those of the last epoch, or with early stopping those of the epoch with the best `monitor`. A run that diverged is
    worse than any other: infinite, since a sweeper refuses NaN. ValueError, in one line, where nothing was measured.
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
