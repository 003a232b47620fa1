"""The loop that runs any stage: data, networks, Trainer, weights file. What a stage optimises is in its module."""

import logging
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from s2snet import data, models, runs, weights
from s2snet.models.suits import suits
from s2snet.training.adversarial import TrainAdversarial
from s2snet.training.autoencoder import TrainAutoencoder
from s2snet.training.classifier import TrainClassifier
from s2snet.training.finetune import FinetuneDecoder
from s2snet.training.loaders import Batches, derived_seed
from s2snet.training.loggers import METRICS, log_weights, loggers
from s2snet.training.skipped import DAMAGED, Skipped
from s2snet.training.stage import Stage
from s2snet.training.streaming import StreamBatches

CHECKPOINT = "checkpoints/last.ckpt"


def train(settings, config_yaml: str, command: str) -> Path:
    """Trains the stage that the settings name; returns the path of its weights file.

    Leaves in its folder config.yaml, metrics.csv, checkpoints/last.ckpt and, at the end, weights.safetensors.
    """
    _quiet()
    say = (
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print
        if rank_zero_only.rank == 0
        else lambda *_: None
    )
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
    if rank_zero_only.rank == 0:
        if checkpoint is None:  # what an earlier run left must not pass for this one's, should it be interrupted
            for left in (folder / runs.WEIGHTS, folder / CHECKPOINT, folder / METRICS, folder / DAMAGED):
                left.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config_yaml)
    found = loggers(**vars(settings.logger), folder=folder, config={"command": command, **stage.hparams})
    last, best = _checkpoints(folder, recipe)
    callbacks: list[Callback] = [last]
    if best is not None:
        callbacks += [best, EarlyStopping(recipe["early_stopping"], patience=recipe["patience"], mode=best.mode)]
    if trainer.progress:
        callbacks.append(RichProgressBar())
    say(f"stage {settings.stage}: {stage.trained.config['name']} on {len(splits.train)} images -> {folder}")
    skipped = Skipped(folder)
    splits.validation = skipped.without(splits.validation, "validation")
    batches = _batches(settings, splits, skipped)
    callbacks += batches.callbacks
    lightning = pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        strategy=trainer.strategy,
        precision=trainer.precision,
        max_epochs=recipe["epochs"],
        gradient_clip_val=recipe["clip"],
        logger=found,
        callbacks=callbacks,
        enable_progress_bar=trainer.progress,
        enable_model_summary=False,
        log_every_n_steps=min(10, batches.batches(trainer.devices * trainer.num_nodes)),
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
    if best is not None and best.best_model_path:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        stage.load_state_dict(state)
        say(f"kept the weights of the best {best.monitor}: {best.best_model_score:.4f}")
    splits.test = skipped.without(splits.test, "test")
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
    log_weights(found, path, header)
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
        if rank_zero_only.rank == 0 and not settings.overwrite:
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
    if recipe["epochs"] == settings.recipe["epochs"] and finished.is_file():
        raise ValueError(f"ckpt_path={asked}: the run in {folder} is finished; overwrite=true trains it again")
    if rank_zero_only.rank == 0:
        print(f"resuming {path}: epoch {epoch}, step {step}", file=sys.stderr)
    return str(path)


def _checkpoints(folder: Path, recipe: dict[str, Any]) -> tuple[ModelCheckpoint, ModelCheckpoint | None]:
    """The callback that keeps last.ckpt, and, with early stopping, the one that keeps best.ckpt."""
    place = {"dirpath": folder / Path(CHECKPOINT).parent, "enable_version_counter": False}
    often = {"every_n_train_steps": recipe["save_every"]} if recipe["save_every"] else {"every_n_epochs": 1}
    last = ModelCheckpoint(filename=Path(CHECKPOINT).stem, save_top_k=1, **often, **place)
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
