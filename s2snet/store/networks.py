"""The networks that the settings of a command name: the one place where training and evaluation ask for them.

A classifier is what stage=classifier trained, published weights, a user's own as it was built, or untrained.
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
    """The untrained classifier of the settings, in training mode; ValueError where it does not take the data's images.

    Untrained but for a user's own, which is what its target returns.
    """
    module = models.build(**config.classifier.config)
    _answers(module, config)
    return module.train()


def find_classifier(config: Networks, shelf: paths.Shelf, note: Callable[[str], None]) -> tuple[nn.Module, str]:
    """(the classifier of the settings in eval mode with its `.header`, where it comes from).

    `classifier.weights` decides: `random` (untrained, the same for every command), a file, or the name of a weights
    entry; null takes what stage=classifier left on the shelf, and for a user's own else the module as it is built.
    `note` is told what a reader of the results must know. FileNotFoundError, in one line, where nothing was trained;
    ValueError for what cannot be used.
    """
    classifier, wanted = config.classifier, config.classifier.weights
    path = shelf.path("classifier", classifier, config.autoencoder)
    if wanted is None and path.is_file():
        return load_classifier(path, classifier), str(path)
    if wanted is None and classifier.name == "custom":
        return _as_built(config, "built"), f"{classifier.options['target']} as it is built"
    if wanted is None:
        made = f"no weights at {path}; `python train.py stage=classifier` makes them"
        raise FileNotFoundError(f"{made}, or give {weights_hint(classifier)}")
    if wanted == RANDOM:
        name = paths.network_name(classifier.config)
        note(f"{name} is untrained (classifier.weights=random): only speed and memory mean anything")
        return _as_built(config, RANDOM), RANDOM
    return _published(config, wanted, note)


def _as_built(config: Networks, stage: str) -> nn.Module:
    """The classifier as `models.build` makes it, with the same random weights, if any, in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = models.build(**config.classifier.config)
    _answers(module, config)
    return weights.with_header(module, stage, config.data.channels, config.data.size)


def _published(config: Networks, wanted: str, note: Callable[[str], None]) -> tuple[nn.Module, str]:
    built, size, channels = config.classifier.config, config.data.size, config.data.channels
    path = _file(wanted, config.data_root)
    if path is None and built["name"] in models.ENTRIES:
        entry = models.ENTRIES[built["name"]](built["arch"], wanted)
        path = download(entry, config.data_root)
        built |= {"mean": list(entry.mean), "std": list(entry.std)}
        if entry.size != size:
            note(f"{wanted} of {built['arch']} is for images of {entry.size} pixels; data.size={size}")
    if path is None:
        hint = "; point data_root (S2SNET_DATA) to the folder that has it, or take classifier.weights=null"
        raise ValueError(f"classifier.weights={wanted}: no such file{hint}")
    module = weights.load_published(path, **built)
    _answers(module, config)
    return weights.with_header(module, "published", channels, size), str(path)


def begin_with_vgg16(autoencoder: nn.Module, wanted: str, data_root: str | None) -> int:
    """Puts the VGG16 that is wanted, a file or an entry of torchvision, into the encoder; returns how many tensors."""
    if not isinstance(autoencoder, models.SegNet):
        raise ValueError(f"from_vgg16={wanted}: for a SegNet; autoencoder={autoencoder.config['name']} is none")
    path = _file(wanted, data_root)
    path = path or download(models.torchvision_weights("vgg16", wanted, "from_vgg16"), data_root)
    state = weights.read_tensors(path)
    try:
        return models.transplant_vgg16(autoencoder, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_classifier(path: str | Path, classifier: Classifier) -> nn.Module:
    """The classifier of a weights file. One that needs a user's code needs the same target and options as asked for."""
    if classifier.name == "custom":
        _same_options(path, weights.read_header(path)["module"], classifier)
    return weights.load(path, trusted=classifier.options.get("target"))


def _same_options(path: str | Path, stored: object, classifier: Classifier) -> None:
    """ValueError for options other than those asked for: a function may run what they name, and a header is foreign."""
    asked = classifier.options["options"]
    if isinstance(stored, dict) and stored.get("options") != asked:
        raise ValueError(f"{path}: has options={stored.get('options')}, not {asked} as asked")


def load_autoencoder(path: str | Path, config: Networks) -> nn.Module:
    """The autoencoder of a weights file or hf:// address; of a .pth, .pt or .th: the authors' state dict.

    In eval mode with its `.header`. ValueError, in one line, for what cannot be loaded.
    """
    if not str(path).endswith(_AUTHORS):
        inside = weights.read_header(path)["module"]
        inside = inside.get("classifier") if isinstance(inside, dict) else None  # a purifier may have one of its own
        if isinstance(inside, dict) and inside.get("name") == "custom" == config.classifier.name:
            _same_options(path, inside, config.classifier)
        return weights.load(path, trusted=config.classifier.options.get("target"))
    module = models.build(**config.autoencoder.config)
    if not isinstance(module, models.SegNet):
        raise ValueError(f"{path}: a state dict for a SegNet; autoencoder={config.autoencoder.name} is none")
    state = weights.read_tensors(path)
    try:
        models.load_authors(module, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return weights.with_header(module, "published", config.data.channels, config.data.size)


def download(entry: models.Entry, data_root: str | None) -> Path:
    """The entry's file below DATA_ROOT/weights, downloaded where it is not there. ValueError, in one line, else."""
    folder = data_folder(data_root) / "weights"
    path = folder / entry.file
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, str(path), entry.hash_prefix, progress=False)
        except (OSError, RuntimeError) as error:  # no connection, no such page, no room; not the hash it should have
            raise ValueError(
                f"{entry.file} is not in {folder} and could not be downloaded ({' '.join(str(error).split())[:120]}); "
                f"put it there by hand ({entry.url})"
            ) from None
    return path


def _file(wanted: str, data_root: str | None) -> Path | None:
    """The file of that name, from here or in DATA_ROOT/weights."""
    places = (Path(wanted), data_folder(data_root) / "weights" / wanted)
    return next((place for place in places if place.is_file()), None)


def weights_hint(classifier: Classifier) -> str:
    """What else than training gives a classifier its weights, for the end of a sentence."""
    named = {"torchvision": " or an entry such as DEFAULT", "timm": " or pretrained"}.get(classifier.name, "")
    return f"classifier.weights=FILE{named}, or classifier.weights=random (untrained)"


def _answers(module: nn.Module, config: Networks) -> None:
    """ValueError, in one line, where the classifier fails on images of the data's size."""
    check_input(module, paths.network_name(config.classifier.config), config.data.channels, config.data.size)
