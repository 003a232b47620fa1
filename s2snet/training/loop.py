"""Run a stage: Trainer, callbacks, weights file. What a stage optimises is in its own module.

`python train.py` makes a Job from its config (from_config.py), `s2snet.train_purifier` from objects (two_stages.py).
"""

import logging
import signal
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, RichProgressBar
from rich.console import Console

from s2snet import data
from s2snet.config.networks import Data
from s2snet.config.runtime import Logger, Trainer
from s2snet.rank_zero import is_first
from s2snet.store import paths, weights
from s2snet.training import checkpoints
from s2snet.training.attacked import AttackedStage, CollapseWatch
from s2snet.training.average import moving_average
from s2snet.training.checkpoints import CHECKPOINT
from s2snet.training.codes import Codes
from s2snet.training.curves import CURVES, write_curves
from s2snet.training.devices import synchronise_batch_norm
from s2snet.training.loaders import Batches, in_order
from s2snet.training.loggers import METRICS, loggers, mirrors, read_metrics
from s2snet.training.pictures import FOLDER as PICTURES
from s2snet.training.pictures import Pictures
from s2snet.training.skipped import DAMAGED, Skipped
from s2snet.training.stage import Stage
from s2snet.training.streaming import StreamBatches

Say = Callable[[str], None]


@dataclass
class Job:
    """One training run: a stage with its recipe and seed, its data, and the folder of its results."""

    name: str  # of the stage: classifier, 1, 2, adversarial
    stage: Stage
    splits: data.Splits
    folder: Path
    data: Data
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    facts: dict[str, Any] = field(default_factory=dict)  # more for the weights header
    command: str = ""
    config: str = ""  # the settings as YAML
    resume: str | None = None  # the checkpoint to resume from


def printer() -> Say:
    """Return a function that prints a line on stderr, in the first process only."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print if is_first() else lambda *_: None


def fit(job: Job, say: Say) -> Path:
    """Train and return the path of the weights file.

    Writes config.yaml, metrics.csv, pictures/, checkpoints/last.ckpt and, at the end, curves.png and
    weights.safetensors. ValueError, in one line, for settings that exclude each other.
    """
    _quiet()
    stage, recipe, trainer, folder = job.stage, job.stage.recipe, job.trainer, job.folder
    stage.to(memory_format=torch.channels_last)  # a quarter faster, with the same weights
    if recipe.keeps_codes:
        stage.codes = Codes(len(job.splits.train), trainer.devices, folder if recipe.cache == "disk" else None)
    if trainer.compile:
        for module in stage.compiled():
            module.compile()  # in place, so that names in checkpoints and weights files stay
    skipped = Skipped(folder)
    kind = StreamBatches if isinstance(job.splits.train, data.Shards) else Batches
    batches = kind(job.splits, recipe, stage.seed, trainer.workers, skipped.note)
    steps = batches.steps(trainer.devices * trainer.num_nodes)
    total = recipe.epochs * steps
    if recipe.warmup >= total:
        raise ValueError(f"warmup={recipe.warmup}: must be below the {total} optimiser steps of the run")
    sync_batchnorm = synchronise_batch_norm(trainer, recipe)
    _prepare_folder(job)
    job.splits.validation = skipped.without(job.splits.validation, "validation")
    started = loggers(job.logger, folder, {"command": job.command, **stage.hparams}, say)
    last, best = checkpoints.callbacks(folder, recipe)
    callbacks: list[Callback] = [last] if recipe.ema is None else [moving_average(recipe.ema), last]
    if best is not None:
        callbacks.append(best)
    if recipe.early_stopping is not None:
        callbacks.append(EarlyStopping(recipe.early_stopping, patience=recipe.patience, mode=best.mode))
    if isinstance(stage, AttackedStage) and recipe.attacks and recipe.watched:
        callbacks.append(CollapseWatch(say))
    if job.logger.pictures:
        callbacks.append(Pictures(folder / PICTURES, job.logger.pictures))
    if trainer.progress:
        callbacks.append(RichProgressBar())
    say(f"stage {job.name}: {paths.network_name(stage.trained.config)} on {len(job.splits.train)} images -> {folder}")
    lightning = pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        strategy=trainer.strategy,
        precision=trainer.precision,
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip,
        accumulate_grad_batches=recipe.accumulate,
        sync_batchnorm=sync_batchnorm,
        logger=started,
        callbacks=[*callbacks, *batches.callbacks],
        enable_progress_bar=trainer.progress,
        enable_model_summary=False,
        log_every_n_steps=min(10, steps),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our sampler splits the images itself
    )
    stage.to(lightning.strategy.root_device)  # before the average copies it and stays on that device
    try:
        lightning.fit(stage, datamodule=batches, ckpt_path=job.resume)
    except SystemExit as ended:  # Lightning's end on Ctrl-C, and on SIGTERM without a status
        say(f"interrupted; the same command with ckpt_path=last resumes from {folder / CHECKPOINT}")
        raise SystemExit(ended.code or 128 + signal.SIGTERM) from None
    of_stream = batches.facts()
    if not lightning.is_global_zero:
        return folder / paths.WEIGHTS
    if best is not None and best.best_model_path:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        stage.load_state_dict(state)
        say(f"kept the weights of the best {best.monitor}: {best.best_model_score:.4f}")
    header = _save(job, lightning.strategy.root_device, of_stream, skipped, say)
    curves = folder / CURVES
    drawn = job.logger.pictures and write_curves(read_metrics(folder / METRICS), curves)
    for mirror in mirrors(started):
        if drawn:
            mirror.log_picture("curves", curves, lightning.global_step)
        mirror.log_weights(folder / paths.WEIGHTS, header)
        mirror.close()
    return folder / paths.WEIGHTS


def _prepare_folder(job: Job) -> None:
    """Create the run's folder, without an earlier run's files: they must not pass for those of this run."""
    if not is_first():
        return
    if job.resume is None:
        earlier = [job.folder / name for name in (paths.WEIGHTS, CHECKPOINT, METRICS, CURVES, DAMAGED)]
        for file in (*earlier, *(job.folder / PICTURES).glob("epoch_*.png")):
            file.unlink(missing_ok=True)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "config.yaml").write_text(job.config)


def _save(job: Job, device: torch.device, of_stream: dict[str, Any], skipped: Skipped, say: Say) -> dict[str, Any]:
    """Test the network, write its weights file and return the header."""
    test = job.splits.test = skipped.without(job.splits.test, "test")
    # The header's metrics are those of the saved network: in float32, not compiled.
    with torch.compiler.set_stance("force_eager") if job.trainer.compile else nullcontext():
        metrics = _test(job.stage.to(device), test, job.trainer.workers) if len(test) else {}
    job.stage.cpu()
    damaged = skipped.count()
    path = job.folder / paths.WEIGHTS
    header = weights.save(
        job.stage.trained,
        path,
        kind=paths.KINDS[job.name],
        stage=job.name,
        data={**job.data.config, **job.splits.facts(), **of_stream, "damaged": damaged},
        input={"range": [0, 1], "channels": job.data.channels, "size": job.data.size},
        recipe=asdict(job.stage.recipe),
        seed=job.stage.seed,
        command=job.command,
        metrics=metrics,
        **job.facts,
    )
    if of_stream.get("rejected"):
        counts = ", ".join(f"{count} {rule}" for rule, count in of_stream["rejected"].items())
        say(f"rejected samples: {counts}")
    if damaged:
        say(f"damaged images, skipped: {damaged}, listed in {skipped.path}")
    measured = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    say(f"{path}: {measured} on {len(test)} test images" if metrics else f"{path}")
    return header


def _test(stage: Stage, images: data.Images, workers: int) -> dict[str, float]:
    """Return what the stage measures, as means over all test images."""
    stage.eval()
    totals: dict[str, float] = {}
    for batch in in_order(images, workers):
        for name, value in stage.measure([part.to(stage.device) for part in batch]).items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(batch[0])
    return {name: round(total / len(images), 6) for name, total in totals.items()}


def _quiet() -> None:
    """Silence what a user cannot act on: Lightning's advertisements and its own deprecation warnings."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*does not have many workers.*",
        ".*Experiment logs directory .* exists.*",
        ".*GPU available but not used.*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # the frozen parts, on purpose
    ):
        warnings.filterwarnings("ignore", message)
