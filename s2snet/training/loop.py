"""The loop that runs any stage: data, networks, Trainer, weights file. What a stage optimises is in its module."""

import logging
import pickle
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from s2snet import data, models, runs, weights
from s2snet.rank_zero import is_first
from s2snet.training.adversarial import TrainAdversarial
from s2snet.training.autoencoder import TrainAutoencoder
from s2snet.training.average import Average
from s2snet.training.classifier import TrainClassifier
from s2snet.training.codes import Codes
from s2snet.training.devices import synchronise_batch_norm
from s2snet.training.finetune import FinetuneDecoder
from s2snet.training.loaders import Batches, derived_seed
from s2snet.training.loggers import METRICS, log_weights, loggers
from s2snet.training.stage import Stage

CHECKPOINT = "checkpoints/last.ckpt"


def train(settings, config_yaml: str, command: str) -> Path:
    """Trains the stage that the settings name; returns the path of its weights file.

    Leaves in its folder config.yaml, metrics.csv, checkpoints/last.ckpt and, at the end, weights.safetensors.
    """
    _quiet()
    say = Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print if is_first() else lambda *_: None
    kind = runs.KINDS[settings.stage]
    shelf = runs.Shelf(Path(settings.runs) / settings.data["name"])
    folder = Path(settings.output or shelf.folder / runs.run_name(kind, settings.classifier, settings.autoencoder))
    checkpoint = _checkpoint(folder, settings)
    splits = data.load(data_root=settings.data_root, **settings.data)
    stage, facts = _build(settings, shelf, say)
    stage.to(memory_format=torch.channels_last)  # a quarter faster; the weights are the same
    recipe, trainer = settings.recipe, settings.trainer
    if settings.stage == "2" and recipe["cache"] != "none":
        stage.codes = Codes(len(splits.train), trainer.devices, folder if recipe["cache"] == "disk" else None)
    if trainer.compile:
        for module in stage.compiled():
            module.compile()  # in place: no name in a checkpoint or weights file changes
    batches = Batches(splits, recipe, settings.seed, trainer.workers)
    steps = batches.steps(trainer.devices * trainer.num_nodes)
    if recipe["warmup"] >= recipe["epochs"] * steps:
        there = recipe["epochs"] * steps
        raise ValueError(f"warmup={recipe['warmup']}: the run has {there} optimiser steps; at most {there - 1}")
    sync_batchnorm = synchronise_batch_norm(trainer, recipe)
    if is_first():
        if checkpoint is None:  # what an earlier run left must not pass for this one's, should it be interrupted
            for left in (folder / runs.WEIGHTS, folder / CHECKPOINT, folder / METRICS):
                left.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config_yaml)
    found = loggers(**vars(settings.logger), folder=folder, config={"command": command, **stage.hparams})
    last, best = _checkpoints(folder, recipe)
    average = Average(recipe["ema"]) if recipe["ema"] is not None else None
    callbacks: list[Callback] = [last] if average is None else [average, last]
    if best is not None:
        callbacks += [best, EarlyStopping(recipe["early_stopping"], patience=recipe["patience"], mode=best.mode)]
    if trainer.progress:
        callbacks.append(RichProgressBar())
    say(f"stage {settings.stage}: {stage.trained.config['name']} on {len(splits.train)} images -> {folder}")
    lightning = pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        strategy=trainer.strategy,
        precision=trainer.precision,
        max_epochs=recipe["epochs"],
        gradient_clip_val=recipe["clip"],
        accumulate_grad_batches=recipe["accumulate"],
        sync_batchnorm=sync_batchnorm,
        logger=found,
        callbacks=callbacks,
        enable_progress_bar=trainer.progress,
        enable_model_summary=False,
        log_every_n_steps=min(10, steps),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours shares out the images itself
    )
    try:
        lightning.fit(stage, datamodule=batches, ckpt_path=checkpoint)
    except SystemExit:  # Ctrl-C, as Lightning ends it
        say(f"interrupted; the same command with ckpt_path=last goes on from {folder / CHECKPOINT}")
        raise
    if not lightning.is_global_zero:
        return folder / runs.WEIGHTS
    if average is not None:
        average.swap(stage)
    if best is not None and best.best_model_path:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        stage.load_state_dict(state)
        say(f"kept the weights of the best {best.monitor}: {best.best_model_score:.4f}")
    # What the header states is the network's as it is saved: in float32, not compiled.
    with torch.compiler.set_stance("force_eager") if trainer.compile else nullcontext():
        facts["metrics"] = _test(stage.cpu(), splits.test)
    path = folder / runs.WEIGHTS
    header = weights.save(
        stage.trained,
        path,
        kind=kind,
        stage=settings.stage,
        data={**settings.data, **splits.facts()},
        input={"range": [0, 1], "channels": settings.data["channels"], "size": settings.data["size"]},
        recipe=recipe,
        seed=settings.seed,
        command=command,
        **facts,
    )
    log_weights(found, path, header)
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in facts["metrics"].items())
    say(f"{path}: {metrics} on {len(splits.test)} test images")
    return path


def _build(settings, shelf: runs.Shelf, say) -> tuple[Stage, dict[str, Any]]:
    """The Lightning module of the stage, and which frozen parts went into it (for the weights' header)."""
    recipe, seed = settings.recipe, settings.seed
    torch.manual_seed(derived_seed(seed, list(runs.KINDS).index(settings.stage)))
    if settings.stage == "classifier":
        if settings.published:
            raise ValueError(
                f"classifier.weights={settings.published}: published weights, nothing to train; "
                "classifier.weights=null trains the network anew"
            )
        return TrainClassifier(models.build(**settings.classifier), recipe, seed), {}
    if settings.stage == "adversarial":
        return TrainAdversarial(models.build(**settings.classifier), recipe, seed), {}
    if settings.stage == "1":
        return TrainAutoencoder(models.build(**settings.autoencoder), recipe, seed), {}
    autoencoder = _part(settings, shelf, "autoencoder", settings.from_autoencoder, say)
    classifier = _part(settings, shelf, "classifier", settings.from_classifier, say)
    facts = {
        "autoencoder": autoencoder.header["fingerprint"],
        "classifier": classifier.header["fingerprint"],
    }
    return FinetuneDecoder(autoencoder, classifier, recipe, seed), facts


def _part(settings, shelf: runs.Shelf, kind: str, given: str | None, say) -> nn.Module:
    """The weights that stage 2 stands on: those given, or those that the earlier stage left."""
    earlier = {"autoencoder": "1", "classifier": "classifier"}[kind]
    path = Path(given) if given else shelf.path(kind, settings.classifier, settings.autoencoder)
    if kind == "classifier" and settings.published and not given:
        part = weights.load_published(settings.published, settings.data["size"], **settings.classifier)
        say(f"classifier: {settings.published} (published, fingerprint {part.header['fingerprint'][:12]})")
        return part
    if not path.is_file():
        needs = f"stage 2 needs the weights of stage={earlier}; none at {path}"
        wanted = f"from_{kind}={given}: no such file" if given else needs
        raise ValueError(f"{wanted}. Run `python train.py stage={earlier}` first, or give from_{kind}=FILE")
    part = weights.load(path)
    known = models.AUTOENCODERS if kind == "autoencoder" else models.CLASSIFIERS
    if part.config["name"] not in known:
        raise ValueError(
            f"{path}: holds a {part.config['name']}; stage 2 needs {kind} weights there ({', '.join(known)})"
        )
    if not given:
        asked, has = models.build(**getattr(settings, kind)).config, part.config
        differ = [f"{key}={has.get(key)}, not {asked[key]}" for key in asked if has.get(key) != asked[key]]
        if differ:
            raise ValueError(
                f"{path}: has {'; '.join(differ)} as asked. Train stage={earlier} with these settings, or give "
                f"from_{kind}={path} to take it as it is"
            )
    say(f"{kind}: {path} (stage {part.header['stage']}, fingerprint {part.header['fingerprint'][:12]})")
    return part


def _checkpoint(folder: Path, settings) -> str | None:
    """The checkpoint to go on from, or None; ValueError where the folder and the command do not go together."""
    finished, interrupted = folder / runs.WEIGHTS, folder / CHECKPOINT
    asked = settings.ckpt_path
    if asked is None:
        if is_first() and not settings.overwrite:
            if finished.is_file():
                raise ValueError(f"{folder} holds a finished run: overwrite=true trains again, output=FOLDER elsewhere")
            if interrupted.is_file():
                raise ValueError(
                    f"{folder} holds an interrupted run: ckpt_path=last goes on, overwrite=true trains anew"
                )
        return None
    path = interrupted if asked == "last" else Path(asked)
    if not path.is_file():
        raise ValueError(f"ckpt_path={asked}: nothing to go on from, no {path}; leave ckpt_path out to start anew")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        recipe, epoch, step = state["hyper_parameters"]["recipe"], state["epoch"], state["global_step"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError):
        raise ValueError(f"ckpt_path={asked}: {path} is damaged, or no checkpoint of this project") from None
    if recipe.keys() != settings.recipe.keys():
        raise ValueError(f"ckpt_path={asked}: {path} is of another stage than stage={settings.stage}")
    if (recipe["ema"] is None) != (settings.recipe["ema"] is None):
        raise ValueError(f"ckpt_path={asked}: {path} is of a run with ema={recipe['ema']}; go on with the same")
    if recipe["epochs"] == settings.recipe["epochs"] and finished.is_file():
        raise ValueError(f"ckpt_path={asked}: the run in {folder} is finished; overwrite=true trains it again")
    if is_first():
        print(f"resuming {path}: epoch {epoch}, step {step}", file=sys.stderr)
    return str(path)


class _Checkpoint(ModelCheckpoint):
    """Saves after optimiser steps only: between them there are gathered gradients that no checkpoint holds.

    Lightning alone does so once after resuming, since it forgets at which step it saved last.
    """

    def on_train_batch_end(self, trainer: pl.Trainer, stage, outputs, batch, batch_index: int) -> None:
        if (batch_index + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, stage, outputs, batch, batch_index)


def _checkpoints(folder: Path, recipe: dict[str, Any]) -> tuple[ModelCheckpoint, ModelCheckpoint | None]:
    """The callback that keeps last.ckpt, and, with early stopping, the one that keeps best.ckpt."""
    place = {"dirpath": folder / Path(CHECKPOINT).parent, "enable_version_counter": False}
    often = {"every_n_train_steps": recipe["save_every"]} if recipe["save_every"] else {"every_n_epochs": 1}
    last = _Checkpoint(filename=Path(CHECKPOINT).stem, save_top_k=1, **often, **place)
    monitor = recipe["early_stopping"]
    if monitor is None:
        return last, None
    mode = "min" if monitor.endswith(("loss", "error")) else "max"
    return last, ModelCheckpoint(filename="best", monitor=monitor, mode=mode, **place)


def _test(stage: Stage, images: data.Images) -> dict[str, float]:
    """What the stage measures, as means over all test images."""
    stage.eval()
    totals: dict[str, float] = {}
    for batch in DataLoader(images, batch_size=256):
        for name, value in stage.measure(batch).items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(batch[0])
    return {name: round(total / len(images), 6) for name, total in totals.items()}


def _quiet() -> None:
    """Silences what a user cannot act on: Lightning's advertisements and the notes on its own deprecations."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*does not have many workers.*",
        ".*Experiment logs directory .* exists.*",
        ".*GPU available but not used.*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # the frozen parts: meant so
    ):
        warnings.filterwarnings("ignore", message)
