"""From the settings of `python train.py` to a Job: data by name, networks built or found, and do they go together."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from s2snet.training.finetune import FinetuneDecoder
from s2snet.training.loaders import derived_seed
from s2snet.training.loop import Job, fit, speaker
from s2snet.training.stage import Stage


def train(config: TrainCommand, config_yaml: str, command: str) -> Path:
    """Trains the stage that the settings name; returns the path of its weights file."""
    say = speaker()
    shelf = paths.Shelf(Path(config.runs) / config.data.name)
    name = paths.run_name(paths.KINDS[config.stage], config.classifier, config.autoencoder)
    folder = Path(config.output or shelf.folder / name)
    resume = checkpoints.to_resume(
        folder, config.ckpt_path, asdict(config.recipe), config.stage, overwrite=config.overwrite
    )
    splits = data.load(config.data.name, config.data_root, **config.data.options)
    config = config.with_classes(len(splits.test.classes))
    _trainable(config, splits)
    stage, facts = _build(config, shelf, say)
    _suitable(stage, config, splits)
    if isinstance(splits.train, data.Shards):
        splits.train.labelled = _needs_labels(config)
    job = Job(
        name=config.stage,
        stage=stage,
        splits=splits,
        folder=folder,
        data=config.data.config,
        trainer=config.trainer,
        logger=config.logger,
        facts=facts,
        command=command,
        config=config_yaml,
        resume=resume,
    )
    return fit(job, say)


def _trainable(config: TrainCommand, splits: data.Splits) -> None:
    """ValueError, in one line, where these data are not for this stage."""
    name = config.data.name
    if not len(splits.train):
        raise ValueError(f"data={name}: no image is left to train on, all {len(splits.test)} are test images")
    if isinstance(splits.train, data.Shards) and getattr(config.recipe, "cache", "none") != "none":
        raise ValueError(
            f"recipes.stage2.cache={config.recipe.cache}: a stream cuts its images out anywhere, other ones each "
            "time; cache=none"
        )
    if splits.labelled or config.stage == "1":
        return
    if _needs_labels(config):
        raise ValueError(
            f"data={name} has no labels: allowed are stage=1, and stage=2 with recipes.stage2.labels=classifier"
        )
    if config.classifier.options.get("classes", 0) is None and not config.from_classifier:
        raise ValueError(
            "data.classes=null: images without labels don't say how many classes the classifier has; "
            "give data.classes=NUMBER"
        )


def _needs_labels(config: TrainCommand) -> bool:
    return config.stage != "1" and getattr(config.recipe, "labels", "truth") != "classifier"


def _suitable(stage: Stage, config: TrainCommand, splits: data.Splits) -> None:
    """ValueError, in one line, where a network of the stage does not go with the data."""
    shape, classes = (config.data.channels, config.data.size), len(splits.test.classes)
    networks = {stage.trained.config["name"]: stage.trained}
    if isinstance(stage, FinetuneDecoder):
        networks["the classifier"] = stage.classifier
    for name, network in networks.items():
        check_input(network, name, *shape, classes if splits.labelled else None)


def _build(config: TrainCommand, shelf: paths.Shelf, say: Callable[[str], None]) -> tuple[Stage, dict[str, Any]]:
    """The Lightning module of the stage, and which frozen parts went into it (for the weights' header)."""
    recipe, seed = asdict(config.recipe), config.seed
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
    facts = {
        "autoencoder": autoencoder.header["fingerprint"],
        "classifier": classifier.header["fingerprint"],
    }
    return FinetuneDecoder(autoencoder, classifier, recipe, seed), facts


def _autoencoder(config: TrainCommand, shelf: paths.Shelf, say: Callable[[str], None]) -> nn.Module:
    """The autoencoder that stage 2 stands on: the file given, or what stage=1 left."""
    given = config.from_autoencoder
    path = given or shelf.path("autoencoder", config.classifier, config.autoencoder)
    if not remote.local(path).is_file():
        raise _missing("autoencoder", given, path)
    return _taken("autoencoder", networks.load_autoencoder(path, config), str(path), config, say)


def _classifier(config: TrainCommand, shelf: paths.Shelf, say: Callable[[str], None]) -> nn.Module:
    """The classifier that stage 2 stands on: the file given, or the one that the settings name."""
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
    return _taken("classifier", found, source, config, say)


def _missing(kind: str, given: str | None, path: str | Path, hint: str = "") -> ValueError:
    earlier = {"autoencoder": "1", "classifier": "classifier"}[kind]
    needs = f"stage 2 needs the weights of stage={earlier}; none at {path}"
    wanted = f"from_{kind}={given}: no such file" if given else needs
    return ValueError(f"{wanted}. Run `python train.py stage={earlier}` first, or give from_{kind}=FILE{hint}")


def _taken(kind: str, part: nn.Module, source: str, config: TrainCommand, say: Callable[[str], None]) -> nn.Module:
    """The part itself, said which; ValueError for one of another kind or of other settings than those asked for."""
    stage = part.header["stage"]
    known = models.AUTOENCODERS if kind == "autoencoder" else models.CLASSIFIERS
    if part.config["name"] not in known:
        raise ValueError(
            f"{source}: holds a {part.config['name']}; stage 2 needs {kind} weights there ({', '.join(known)})"
        )
    earlier = {"autoencoder": "1", "classifier": "classifier"}[kind]
    if not getattr(config, f"from_{kind}") and stage == earlier:
        asked, has = models.build(**getattr(config, kind).config).config, part.config
        differ = [f"{key}={has.get(key)}, not {asked[key]}" for key in asked if has.get(key) != asked[key]]
        if differ:
            raise ValueError(
                f"{source}: has {'; '.join(differ)} as asked. Train stage={earlier} with these settings, or give "
                f"from_{kind}={source} to take it as it is"
            )
    say(f"{kind}: {source} (stage {stage}, fingerprint {part.header['fingerprint'][:12]})")
    return part
