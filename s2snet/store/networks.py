"""Build or load the networks of a command, for training and evaluation alike.

A classifier is what stage=classifier trained, published weights, a user's own as it is built, or untrained.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from s2snet import models
from s2snet.config.networks import Classifier, Networks
from s2snet.data.root import data_folder
from s2snet.models.check_input import check_input
from s2snet.store import paths, weights

RANDOM = "random"  # the word for untrained weights
_AUTHORS = (".pth", ".pt", ".th")  # of files that hold an autoencoder's state dict as its authors release it


def build_classifier(config: Networks) -> nn.Module:
    """Return the untrained classifier of the config, in training mode; a user's own is what its target returns.

    ValueError if it does not take the data's images.
    """
    module = models.build(**config.classifier.config)
    _check_classifier(module, config)
    return module.train()


def find_classifier(config: Networks, shelf: paths.Shelf, note: Callable[[str], None]) -> tuple[nn.Module, str]:
    """Return the classifier of the config, in eval mode with its `.header`, and its source.

    `classifier.weights` decides: `random` (untrained, the same for every command), a file, or the name of a weights
    entry. null takes what stage=classifier trained, and a user's own as it is built if nothing was trained. `note`
    receives what a reader of the results must know. FileNotFoundError, in one line, if nothing was trained; ValueError
    for weights that cannot be used.
    """
    classifier, chosen = config.classifier, config.classifier.weights
    path = shelf.path("classifier", classifier, config.autoencoder)
    if chosen is None and path.is_file():
        return load_classifier(path, classifier), str(path)
    if chosen is None and classifier.name == "custom":
        return _as_built(config, "built"), f"{classifier.options['target']} as it is built"
    if chosen is None:
        remedy = f"no weights at {path}; `python train.py stage=classifier` makes them"
        raise FileNotFoundError(f"{remedy}, or give {weights_hint(classifier)}")
    if chosen == RANDOM:
        name = paths.network_name(classifier.config)
        note(f"{name} is untrained (classifier.weights=random): only speed and memory are meaningful")
        return _as_built(config, RANDOM), RANDOM
    return _published(config, chosen, note)


def _as_built(config: Networks, stage: str) -> nn.Module:
    """Return the classifier as `models.build` makes it, with the same random weights in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = models.build(**config.classifier.config)
    _check_classifier(module, config)
    return weights.with_header(module, stage, config.data.channels, config.data.size)


def _published(config: Networks, chosen: str, note: Callable[[str], None]) -> tuple[nn.Module, str]:
    """Return the classifier with the weights of a file or an entry, and the file."""
    built, size, channels = config.classifier.config, config.data.size, config.data.channels
    path = _file(chosen, config.data_root)
    if path is None and built["name"] in models.ENTRIES:
        entry = models.ENTRIES[built["name"]](built["arch"], chosen)
        path = download(entry, config.data_root)
        built |= {"mean": list(entry.mean), "std": list(entry.std)}
        if entry.size != size:
            note(f"{chosen} of {built['arch']} is for images of {entry.size} pixels; data.size={size}")
    if path is None:
        hint = "point data_root (S2SNET_DATA) to the folder that has it, or use classifier.weights=null"
        raise ValueError(f"classifier.weights={chosen}: no such file; {hint}")
    module = weights.load_published(path, **built)
    _check_classifier(module, config)
    return weights.with_header(module, "published", channels, size), str(path)


def begin_with_vgg16(autoencoder: nn.Module, source: str, data_root: str | None) -> int:
    """Copy a VGG16, from a file or an entry of torchvision, into the encoder and return the number of tensors."""
    if not isinstance(autoencoder, models.SegNet):
        raise ValueError(f"from_vgg16={source}: needs a SegNet; autoencoder={autoencoder.config['name']} is none")
    path = _file(source, data_root)
    path = path or download(models.torchvision_weights("vgg16", source, "from_vgg16"), data_root)
    state = weights.read_tensors(path)
    try:
        return models.transplant_vgg16(autoencoder, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_classifier(path: str | Path, classifier: Classifier) -> nn.Module:
    """Return the classifier of a weights file. A user's own needs the same target and options as in the config."""
    if classifier.name == "custom":
        _same_options(path, weights.read_header(path)["module"], classifier)
    return weights.load(path, trusted=classifier.options.get("target"))


def _same_options(path: str | Path, stored: object, classifier: Classifier) -> None:
    """ValueError for other options than in the config: a function may run what they name, and the header is foreign."""
    expected = classifier.options["options"]
    if isinstance(stored, dict) and stored.get("options") != expected:
        raise ValueError(f"{path}: expected options={expected}, got {stored.get('options')}")


def load_autoencoder(path: str | Path, config: Networks) -> nn.Module:
    """Return the autoencoder of a weights file, an hf:// address or the authors' state dict (.pth, .pt, .th).

    It is in eval mode with its `.header`. ValueError, in one line, for what cannot be loaded.
    """
    if not str(path).endswith(_AUTHORS):
        inside = weights.read_header(path)["module"]
        inside = inside.get("classifier") if isinstance(inside, dict) else None  # a purifier may contain one
        if isinstance(inside, dict) and inside.get("name") == "custom" == config.classifier.name:
            _same_options(path, inside, config.classifier)
        return weights.load(path, trusted=config.classifier.options.get("target"))
    module = models.build(**config.autoencoder.config)
    if not isinstance(module, models.SegNet):
        raise ValueError(f"{path}: a state dict needs a SegNet; autoencoder={config.autoencoder.name} is none")
    state = weights.read_tensors(path)
    try:
        models.load_authors(module, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return weights.with_header(module, "published", config.data.channels, config.data.size)


def download(entry: models.Entry, data_root: str | None) -> Path:
    """Return the entry's file below DATA_ROOT/weights, downloaded if needed. ValueError, in one line, if that fails."""
    folder = data_folder(data_root) / "weights"
    path = folder / entry.file
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, str(path), entry.hash_prefix, progress=False)
        except (OSError, RuntimeError) as error:  # no connection, no such page, no room; another hash
            raise ValueError(
                f"{entry.file} is not in {folder} and could not be downloaded ({' '.join(str(error).split())[:120]}); "
                f"put it there by hand ({entry.url})"
            ) from None
    return path


def _file(name: str, data_root: str | None) -> Path | None:
    """Return the file of that name, relative to the working folder or in DATA_ROOT/weights."""
    places = (Path(name), data_folder(data_root) / "weights" / name)
    return next((place for place in places if place.is_file()), None)


def weights_hint(classifier: Classifier) -> str:
    """Return the settings that give a classifier its weights without training, for the end of a sentence."""
    entry = {"torchvision": " or an entry such as DEFAULT", "timm": " or pretrained"}.get(classifier.name, "")
    return f"classifier.weights=FILE{entry}, or classifier.weights=random (untrained)"


def _check_classifier(module: nn.Module, config: Networks) -> None:
    """ValueError, in one line, if the classifier fails on images of the data's size."""
    check_input(module, paths.network_name(config.classifier.config), config.data.channels, config.data.size)
