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

from s2snet import data, models, networks, remote, runs, weights
from s2snet.models.suits import suits
from s2snet.rank_zero import is_first
from s2snet.training.adversarial import TrainAdversarial
from s2snet.training.autoencoder import TrainAutoencoder
from s2snet.training.average import Average
from s2snet.training.classifier import TrainClassifier
from s2snet.training.codes import Codes
from s2snet.training.curves import CURVES, write_curves
from s2snet.training.devices import synchronise_batch_norm
from s2snet.training.finetune import FinetuneDecoder
from s2snet.training.loaders import Batches, derived_seed
from s2snet.training.loggers import METRICS, direction, loggers, mirrors, read_metrics
from s2snet.training.pictures import FOLDER as PICTURES
from s2snet.training.pictures import Pictures
from s2snet.training.skipped import DAMAGED, Skipped
from s2snet.training.stage import Stage
from s2snet.training.streaming import StreamBatches

CHECKPOINT = "checkpoints/last.ckpt"


def train(settings, config_yaml: str, command: str) -> Path:
    """Trains the stage that the settings name; returns the path of its weights file.

    Leaves in its folder config.yaml, metrics.csv, pictures/, checkpoints/last.ckpt and, at the end, curves.png and
    weights.safetensors.
    """
    _quiet()
    say = Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print if is_first() else lambda *_: None
    kind = runs.KINDS[settings.stage]
    shelf = runs.Shelf(Path(settings.runs) / settings.data["name"])
    folder = Path(settings.output or shelf.folder / runs.run_name(kind, settings.classifier, settings.autoencoder))
    checkpoint = _checkpoint(folder, settings)
    splits = data.load_chosen(settings)
    _trainable(settings, splits)
    stage, facts = _build(settings, shelf, say)
    _suitable(stage, settings, splits)
    stage.to(memory_format=torch.channels_last)  # a quarter faster; the weights are the same
    recipe, trainer = settings.recipe, settings.trainer
    if settings.stage == "2" and recipe["cache"] != "none":
        stage.codes = Codes(len(splits.train), trainer.devices, folder if recipe["cache"] == "disk" else None)
    if trainer.compile:
        for module in stage.compiled():
            module.compile()  # in place: no name in a checkpoint or weights file changes
    skipped = Skipped(folder)
    batches = _batches(settings, splits, skipped)
    steps = batches.steps(trainer.devices * trainer.num_nodes)
    if recipe["warmup"] >= recipe["epochs"] * steps:
        there = recipe["epochs"] * steps
        raise ValueError(f"warmup={recipe['warmup']}: the run has {there} optimiser steps; at most {there - 1}")
    sync_batchnorm = synchronise_batch_norm(trainer, recipe)
    if is_first():
        if checkpoint is None:  # what an earlier run left must not pass for this one's, should it be interrupted
            leavings = [folder / name for name in (runs.WEIGHTS, CHECKPOINT, METRICS, CURVES, DAMAGED)]
            for left in (*leavings, *(folder / PICTURES).glob("epoch_*.png")):
                left.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config_yaml)
    splits.validation = skipped.without(splits.validation, "validation")
    found = loggers(settings.logger, folder, {"command": command, **stage.hparams}, say)
    last, best = _checkpoints(folder, recipe)
    average = Average(recipe["ema"]) if recipe["ema"] is not None else None
    callbacks: list[Callback] = [last] if average is None else [average, last]
    if best is not None:
        callbacks += [best, EarlyStopping(recipe["early_stopping"], patience=recipe["patience"], mode=best.mode)]
    if settings.logger.pictures:
        callbacks.append(Pictures(folder / PICTURES, settings.logger.pictures))
    if trainer.progress:
        callbacks.append(RichProgressBar())
    callbacks += batches.callbacks
    say(f"stage {settings.stage}: {runs.network_name(stage.trained.config)} on {len(splits.train)} images -> {folder}")
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
    about_data = batches.facts()
    if not lightning.is_global_zero:
        return folder / runs.WEIGHTS
    if average is not None:
        average.swap(stage)
    if best is not None and best.best_model_path:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        stage.load_state_dict(state)
        say(f"kept the weights of the best {best.monitor}: {best.best_model_score:.4f}")
    splits.test = skipped.without(splits.test, "test")
    # What the header states is the network's as it is saved: in float32, not compiled.
    with torch.compiler.set_stance("force_eager") if trainer.compile else nullcontext():
        facts["metrics"] = _test(stage.cpu(), splits.test)
    damaged = skipped.count()
    path = folder / runs.WEIGHTS
    header = weights.save(
        stage.trained,
        path,
        kind=kind,
        stage=settings.stage,
        data={**settings.data, **splits.facts(), **about_data, "damaged": damaged},
        input={"range": [0, 1], "channels": settings.data["channels"], "size": settings.data["size"]},
        recipe=recipe,
        seed=settings.seed,
        command=command,
        **facts,
    )
    curves = folder / CURVES
    drawn = settings.logger.pictures and write_curves(read_metrics(folder / METRICS), curves)
    for mirror in mirrors(found):
        if drawn:
            mirror.log_picture("curves", curves, lightning.global_step)
        mirror.log_weights(path, header)
        mirror.close()
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in facts["metrics"].items())
    if about_data.get("rejected"):
        counts = ", ".join(f"{count} {rule}" for rule, count in about_data["rejected"].items())
        say(f"rejected of what was read: {counts}")
    if damaged:
        say(f"damaged images, skipped: {damaged}, named in {skipped.path}")
    say(f"{path}: {metrics} on {len(splits.test)} test images")
    return path


def _trainable(settings, splits: data.Splits) -> None:
    """ValueError, in one line, where these data are not for this stage."""
    name = settings.data["name"]
    if not len(splits.train):
        raise ValueError(f"data={name}: no image is left to train on, all {len(splits.test)} are test images")
    if splits.labelled or settings.stage == "1":
        return
    if _needs_labels(settings):
        raise ValueError(
            f"data={name} has no labels: allowed are stage=1, and stage=2 with recipes.stage2.labels=classifier"
        )
    if settings.classifier.get("classes", 0) is None and not settings.from_classifier:
        raise ValueError("data.classes=null: images without labels don't say how many classes the classifier has")


def _needs_labels(settings) -> bool:
    return settings.stage != "1" and settings.recipe.get("labels") != "classifier"


def _batches(settings, splits: data.Splits, skipped: Skipped) -> Batches:
    """The loaders that go with the kind of the training images."""
    kind = Batches
    if isinstance(splits.train, data.Shards):
        kind, splits.train.labelled = StreamBatches, _needs_labels(settings)
    return kind(splits, settings.recipe, settings.seed, settings.trainer.workers, skipped.note)


def _suitable(stage: Stage, settings, splits: data.Splits) -> None:
    """ValueError, in one line, where a network of the stage does not go with the data."""
    shape, classes = (settings.data["channels"], settings.data["size"]), len(splits.test.classes)
    networks = {stage.trained.config["name"]: stage.trained}
    if isinstance(stage, FinetuneDecoder):
        networks["the classifier"] = stage.classifier
    for name, network in networks.items():
        suits(network, name, *shape, classes if splits.labelled else None)


def _build(settings, shelf: runs.Shelf, say) -> tuple[Stage, dict[str, Any]]:
    """The Lightning module of the stage, and which frozen parts went into it (for the weights' header)."""
    recipe, seed = settings.recipe, settings.seed
    torch.manual_seed(derived_seed(seed, list(runs.KINDS).index(settings.stage)))
    if settings.stage == "classifier":
        if settings.published:
            raise ValueError(
                f"classifier.weights={settings.published}: nothing to train; classifier.weights=null trains the network"
            )
        return TrainClassifier(networks.build_classifier(settings), recipe, seed), {}
    if settings.stage == "adversarial":
        return TrainAdversarial(networks.build_classifier(settings), recipe, seed), {}
    if settings.stage == "1":
        autoencoder = models.build(**settings.autoencoder)
        if settings.from_vgg16:
            count = networks.begin_with_vgg16(autoencoder, settings)
            say(f"encoder: {count} tensors of the VGG16 {settings.from_vgg16}")
        return TrainAutoencoder(autoencoder, recipe, seed), {}
    autoencoder = _autoencoder(settings, shelf, say)
    classifier = _classifier(settings, shelf, say)
    facts = {
        "autoencoder": autoencoder.header["fingerprint"],
        "classifier": classifier.header["fingerprint"],
    }
    return FinetuneDecoder(autoencoder, classifier, recipe, seed), facts


def _autoencoder(settings, shelf: runs.Shelf, say) -> nn.Module:
    """The autoencoder that stage 2 stands on: the file given, or what stage=1 left."""
    given = settings.from_autoencoder
    path = given or shelf.path("autoencoder", settings.classifier, settings.autoencoder)
    if not remote.local(path).is_file():
        raise _missing("autoencoder", given, path)
    return _taken("autoencoder", networks.load_autoencoder(path, settings), str(path), settings, say)


def _classifier(settings, shelf: runs.Shelf, say) -> nn.Module:
    """The classifier that stage 2 stands on: the file given, or the one that the settings name."""
    given = settings.from_classifier
    if given:
        if not remote.local(given).is_file():
            raise _missing("classifier", given, given)
        found, source = networks.load_classifier(given, settings), given
    else:
        try:
            found, source = networks.find_classifier(settings, shelf, lambda text: say(f"note: {text}"))
        except FileNotFoundError:
            path = shelf.path("classifier", settings.classifier, settings.autoencoder)
            raise _missing("classifier", None, path, f", {networks.weights_hint(settings.classifier)}") from None
    return _taken("classifier", found, source, settings, say)


def _missing(kind: str, given: str | None, path: str | Path, hint: str = "") -> ValueError:
    earlier = {"autoencoder": "1", "classifier": "classifier"}[kind]
    needs = f"stage 2 needs the weights of stage={earlier}; none at {path}"
    wanted = f"from_{kind}={given}: no such file" if given else needs
    return ValueError(f"{wanted}. Run `python train.py stage={earlier}` first, or give from_{kind}=FILE{hint}")


def _taken(kind: str, part: nn.Module, source: str, settings, say) -> nn.Module:
    """The part itself, said which; ValueError for one of another kind or of other settings than those asked for."""
    stage = part.header["stage"]
    known = models.AUTOENCODERS if kind == "autoencoder" else models.CLASSIFIERS
    if part.config["name"] not in known:
        raise ValueError(
            f"{source}: holds a {part.config['name']}; stage 2 needs {kind} weights there ({', '.join(known)})"
        )
    earlier = {"autoencoder": "1", "classifier": "classifier"}[kind]
    if not getattr(settings, f"from_{kind}") and stage == earlier:
        asked, has = models.build(**getattr(settings, kind)).config, part.config
        differ = [f"{key}={has.get(key)}, not {asked[key]}" for key in asked if has.get(key) != asked[key]]
        if differ:
            raise ValueError(
                f"{source}: has {'; '.join(differ)} as asked. Train stage={earlier} with these settings, or give "
                f"from_{kind}={source} to take it as it is"
            )
    say(f"{kind}: {source} (stage {stage}, fingerprint {part.header['fingerprint'][:12]})")
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
    return last, ModelCheckpoint(filename="best", monitor=monitor, mode=direction(monitor), **place)


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
