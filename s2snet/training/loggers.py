"""Loggers: metrics.csv always, Weights & Biases beside it. What wandb shows is on disk too."""

import importlib.util
import os
import uuid
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

METRICS = "metrics.csv"


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


def loggers(name: str, project: str, mode: str, folder: Path, config: dict[str, Any]) -> list[Logger]:
    """The loggers of one run. ValueError in one line where wandb cannot run as asked."""
    found: list[Logger] = [Metrics(folder, name="", version="")]
    if name == "wandb":
        found.append(_wandb(project, os.environ.get("WANDB_MODE", mode), folder, config))
    return found


def _wandb(project: str, mode: str, folder: Path, config: dict[str, Any]) -> WandbLogger:
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
    os.environ["WANDB_MODE"] = mode
    return WandbLogger(
        project=project,
        name=folder.name,
        id=_run_id(folder),
        save_dir=str(folder),
        config=config,
        resume="allow" if mode == "online" else None,
    )


def _run_id(folder: Path) -> str:
    """The wandb id of the run in this folder, kept beside it so that a resumed run goes on in the same curve."""
    kept = folder / "wandb_id.txt"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(uuid.uuid4().hex[:8])
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


def log_weights(found: list[Logger], path: Path, facts: dict[str, Any]) -> None:
    """The weights file as an artifact of the wandb run, where there is one."""
    for logger in found:
        if isinstance(logger, WandbLogger):
            import wandb

            artifact = wandb.Artifact(path.parent.name, type="weights", metadata=facts)
            artifact.add_file(str(path))
            logger.experiment.log_artifact(artifact)
            wandb.finish()
