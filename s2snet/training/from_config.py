"""Train the stage that `python train.py` asks for: load the data, build or find the networks, check that they fit."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from s2snet import data, models
from s2snet.config.training import TrainCommand
from s2snet.models.check_input import check_input
from s2snet.store import networks, paths, remote
from s2snet.training import checkpoints
from s2snet.training.adversarial import TrainAdversarial
from s2snet.training.autoencoder import TrainAutoencoder
from s2snet.training.classifier import TrainClassifier
from s2snet.training.loaders import derived_seed
from s2snet.training.loop import Job, Say, fit, printer
from s2snet.training.stage import Stage
from s2snet.training.tune import stage_two

EARLIER = {"autoencoder": "1", "classifier": "classifier"}  # the stage that trains each part of stage 2


def train(config: TrainCommand, config_yaml: str, command: str) -> Path:
    """Train the stage and return the path of its weights file.

    `config_yaml` and `command` are kept with the run, so that it can be repeated.
    """
    say = printer()
    shelf = paths.Shelf(Path(config.runs) / config.data.name)
    name = paths.run_name(paths.KINDS[config.stage], config.classifier, config.autoencoder)
    folder = Path(config.output or shelf.folder / name)
    resume = checkpoints.to_resume(folder, config.ckpt_path, config.recipe, config.stage, overwrite=config.overwrite)
    splits = data.load(config.data.name, config.data_root, **config.data.options)
    config = config.with_classes(len(splits.test.classes))
    _check_data(config, splits)
    stage, parts = _build(config, shelf, say)
    _check_networks(stage, config, splits)
    if isinstance(splits.train, data.Shards):
        splits.train.labelled = config.recipe.needs_labels
    job = Job(
        name=config.stage,
        stage=stage,
        splits=splits,
        folder=folder,
        data=config.data,
        trainer=config.trainer,
        logger=config.logger,
        facts=parts,
        command=command,
        config=config_yaml,
        resume=resume,
    )
    return fit(job, say)


def _check_data(config: TrainCommand, splits: data.Splits) -> None:
    """ValueError, in one line, if the stage cannot be trained on these data."""
    name = config.data.name
    if not len(splits.train):
        raise ValueError(f"data={name}: no training images; all {len(splits.test)} are test images")
    if isinstance(splits.train, data.Shards) and config.recipe.keeps_codes:
        raise ValueError(
            f"recipes.stage2.cache={config.recipe.cache}: a stream crops its images at random, so no code can be "
            "reused; use cache=none"
        )
    if splits.labelled:
        return
    if config.recipe.needs_labels:
        raise ValueError(
            f"data={name} has no labels: allowed are stage=1, and stage=2 with recipes.stage2.labels=classifier"
        )
    if config.stage == "2" and not config.from_classifier and config.classifier.options.get("classes", 0) is None:
        raise ValueError(
            "data.classes=null: unlabelled images do not determine the classifier's number of classes; "
            "give data.classes=NUMBER"
        )


def _check_networks(stage: Stage, config: TrainCommand, splits: data.Splits) -> None:
    """ValueError, in one line, if a network of the stage does not take the images or has too few classes."""
    classes = len(splits.test.classes) if splits.labelled else None
    parts = {stage.trained.config["name"]: stage.trained}
    if config.stage == "2":
        parts["the classifier"] = stage.classifier
    for name, network in parts.items():
        check_input(network, name, config.data.channels, config.data.size, classes)


def _build(config: TrainCommand, shelf: paths.Shelf, say: Say) -> tuple[Stage, dict[str, str]]:
    """Return the stage's Lightning module, and the fingerprints of the parts it starts from, for the weights header."""
    recipe, seed = config.recipe, config.seed
    torch.manual_seed(derived_seed(seed, list(paths.KINDS).index(config.stage)))
    if config.stage == "classifier":
        if config.classifier.weights:
            raise ValueError(
                f"classifier.weights={config.classifier.weights}: nothing to train; classifier.weights=null trains the "
                "network"
            )
        return TrainClassifier(networks.build_classifier(config), recipe, seed), {}
    if config.stage == "adversarial":
        return TrainAdversarial(networks.build_classifier(config), recipe, seed), {}
    if config.stage == "1":
        autoencoder = models.build(**config.autoencoder.config)
        if config.from_vgg16:
            count = networks.begin_with_vgg16(autoencoder, config.from_vgg16, config.data_root)
            say(f"encoder: {count} tensors of the VGG16 {config.from_vgg16}")
        return TrainAutoencoder(autoencoder, recipe, seed), {}
    autoencoder = _autoencoder(config, shelf, say)
    classifier = _classifier(config, shelf, say)
    parts = {
        "autoencoder": autoencoder.header["fingerprint"],
        "classifier": classifier.header["fingerprint"],
    }
    return stage_two(autoencoder, classifier, recipe, seed), parts


def _autoencoder(config: TrainCommand, shelf: paths.Shelf, say: Say) -> nn.Module:
    """Return the autoencoder that stage 2 fine-tunes: the given file, or what stage=1 left."""
    given = config.from_autoencoder
    path = given or shelf.path("autoencoder", config.classifier, config.autoencoder)
    if not remote.local(path).is_file():
        raise _missing("autoencoder", given, path)
    found = networks.load_autoencoder(path, config)
    _check_part("autoencoder", found, str(path), models.AUTOENCODERS)
    if not given:
        _check_architecture("autoencoder", found, str(path), config.autoencoder.config)
    return _reported("autoencoder", found, str(path), say)


def _classifier(config: TrainCommand, shelf: paths.Shelf, say: Say) -> nn.Module:
    """Return the classifier of stage 2: the given file, or the one that the config names."""
    given = config.from_classifier
    if given:
        if not remote.local(given).is_file():
            raise _missing("classifier", given, given)
        found, source = networks.load_classifier(given, config.classifier), given
    else:
        try:
            found, source = networks.find_classifier(config, shelf, lambda text: say(f"note: {text}"))
        except FileNotFoundError:
            path = shelf.path("classifier", config.classifier, config.autoencoder)
            raise _missing("classifier", None, path, f", {networks.weights_hint(config.classifier)}") from None
    _check_part("classifier", found, source, models.CLASSIFIERS)
    if not given:
        _check_architecture("classifier", found, source, config.classifier.config)
    return _reported("classifier", found, source, say)


def _missing(part: str, given: str | None, path: str | Path, hint: str = "") -> ValueError:
    needs = f"stage 2 needs the weights of stage={EARLIER[part]}; none at {path}"
    wanted = f"from_{part}={given}: no such file" if given else needs
    return ValueError(f"{wanted}. Run `python train.py stage={EARLIER[part]}` first, or give from_{part}=FILE{hint}")


def _check_part(part: str, found: nn.Module, source: str, known: dict[str, Callable]) -> None:
    """ValueError if the file holds another kind of network."""
    if found.config["name"] not in known:
        raise ValueError(
            f"{source}: holds a {found.config['name']}; stage 2 needs {part} weights there ({', '.join(known)})"
        )


def _check_architecture(part: str, found: nn.Module, source: str, config: dict) -> None:
    """ValueError if what an earlier stage trained has other options than asked for."""
    if found.header["stage"] != EARLIER[part]:
        return
    asked = models.build(**config).config
    has = found.config
    differ = [f"{key}={asked[key]}, got {has.get(key)}" for key in asked if has.get(key) != asked[key]]
    if differ:
        raise ValueError(
            f"{source}: expected {'; '.join(differ)}. Train stage={EARLIER[part]} with these settings, or give "
            f"from_{part}={source} to use it as it is"
        )


def _reported(part: str, found: nn.Module, source: str, say: Say) -> nn.Module:
    """Return the part itself after printing which one was taken."""
    header = found.header
    say(f"{part}: {source} (stage {header['stage']}, fingerprint {header['fingerprint'][:12]})")
    return found
