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

from s2snet import data, models, networks, runs, weights
from s2snet.training.adversarial import TrainAdversarial
from s2snet.training.autoencoder import TrainAutoencoder
from s2snet.training.classifier import TrainClassifier
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
    say = (
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print
        if rank_zero_only.rank == 0
        else lambda *_: None
    )
    kind = runs.KINDS[settings.stage]
    shelf = runs.Shelf(Path(settings.runs) / settings.data["name"])
    folder = Path(settings.output or shelf.folder / runs.run_name(kind, settings.classifier, settings.autoencoder))
    checkpoint = _checkpoint(folder, settings)
    splits = data.load(data_root=settings.data_root, **settings.data)
    stage, facts = _build(settings, shelf, say)
    stage.to(memory_format=torch.channels_last)  # a quarter faster; the weights are the same
    recipe, trainer = settings.recipe, settings.trainer
    if rank_zero_only.rank == 0:
        if checkpoint is None:  # what an earlier run left must not pass for this one's, should it be interrupted
            for left in (folder / runs.WEIGHTS, folder / CHECKPOINT, folder / METRICS):
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
    say(f"stage {settings.stage}: {runs.network_name(stage.trained.config)} on {len(splits.train)} images -> {folder}")
    batches = Batches(splits, recipe, settings.seed, trainer.workers)
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
    if not lightning.is_global_zero:
        return folder / runs.WEIGHTS
    if best is not None and best.best_model_path:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        stage.load_state_dict(state)
        say(f"kept the weights of the best {best.monitor}: {best.best_model_score:.4f}")
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
    path = Path(given) if given else shelf.path("autoencoder", settings.classifier, settings.autoencoder)
    if not path.is_file():
        raise _missing("autoencoder", given, path)
    return _taken("autoencoder", networks.load_autoencoder(path, settings), str(path), settings, say)


def _classifier(settings, shelf: runs.Shelf, say) -> nn.Module:
    """The classifier that stage 2 stands on: the file given, or the one that the settings name."""
    given = settings.from_classifier
    if given:
        if not Path(given).is_file():
            raise _missing("classifier", given, Path(given))
        found, source = networks.load_classifier(given, settings), given
    else:
        try:
            found, source = networks.find_classifier(settings, shelf, lambda text: say(f"note: {text}"))
        except FileNotFoundError:
            path = shelf.path("classifier", settings.classifier, settings.autoencoder)
            raise _missing("classifier", None, path, f", {networks.weights_hint(settings.classifier)}") from None
    return _taken("classifier", found, source, settings, say)


def _missing(kind: str, given: str | None, path: Path, hint: str = "") -> ValueError:
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
