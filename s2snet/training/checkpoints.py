"""Write checkpoints after optimiser steps, and check one before a run resumes from it."""

import pickle
import sys
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from s2snet.config.recipe import Recipe
from s2snet.rank_zero import is_first
from s2snet.store import paths
from s2snet.training.loggers import direction

CHECKPOINT = "checkpoints/last.ckpt"


def to_resume(folder: Path, asked: str | None, recipe: Recipe, stage: str, overwrite: bool) -> str | None:
    """Return the checkpoint to resume from, or None to start from scratch.

    `asked` is None, `last` or a file. ValueError, in one line, if the command does not fit what the folder holds.
    """
    finished, interrupted = folder / paths.WEIGHTS, folder / CHECKPOINT
    if asked is None:
        if is_first() and not overwrite:
            if finished.is_file():
                raise ValueError(
                    f"{folder} holds a finished run: overwrite=true to retrain, output=FOLDER to write elsewhere"
                )
            if interrupted.is_file():
                raise ValueError(
                    f"{folder} holds an interrupted run: ckpt_path=last to resume, overwrite=true to start again"
                )
        return None
    path = interrupted if asked == "last" else Path(asked)
    if not path.is_file():
        raise ValueError(f"ckpt_path={asked}: nothing to resume, no {path}; leave ckpt_path out to start from scratch")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        earlier, epoch, step = state["hyper_parameters"]["recipe"], state["epoch"], state["global_step"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError):
        raise ValueError(f"ckpt_path={asked}: {path} is damaged or not a checkpoint of this project") from None
    if earlier.keys() != asdict(recipe).keys():
        raise ValueError(f"ckpt_path={asked}: {path} belongs to another stage than stage={stage}")
    if recipe.ema is not None and earlier["ema"] is not None and "averaging_state" not in state:
        raise ValueError(
            f"ckpt_path={asked}: {path} has the average of an earlier version; overwrite=true to start again"
        )
    if (earlier["ema"] is None) != (recipe.ema is None):
        raise ValueError(f"ckpt_path={asked}: {path} belongs to a run with ema={earlier['ema']}; resume with the same")
    if earlier["epochs"] == recipe.epochs and finished.is_file():
        raise ValueError(f"ckpt_path={asked}: the run in {folder} is finished; overwrite=true to retrain")
    if is_first():
        print(f"resuming {path}: epoch {epoch}, step {step}", file=sys.stderr)
    return str(path)


class AfterSteps(ModelCheckpoint):
    """A ModelCheckpoint that saves after optimiser steps only: accumulated gradients are in no checkpoint.

    Lightning's own saves once between steps after resuming, since it forgets at which step it saved last.
    """

    def on_train_batch_end(self, trainer: pl.Trainer, stage, outputs, batch, batch_index: int) -> None:
        if (batch_index + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, stage, outputs, batch, batch_index)


def callbacks(folder: Path, recipe: Recipe) -> tuple[ModelCheckpoint, ModelCheckpoint | None]:
    """Return the callback that keeps last.ckpt and, with early stopping, the one that keeps best.ckpt."""
    location = {"dirpath": folder / Path(CHECKPOINT).parent, "enable_version_counter": False}
    often = {"every_n_train_steps": recipe.save_every} if recipe.save_every else {"every_n_epochs": 1}
    last = AfterSteps(filename=Path(CHECKPOINT).stem, save_top_k=1, **often, **location)
    monitor = recipe.kept_by
    if monitor is None:
        return last, None
    return last, ModelCheckpoint(filename="best", monitor=monitor, mode=direction(monitor), **location)
