"""Build torchvision's classifiers by name, and find their published weights."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from s2snet import torchvision_cpu
from s2snet.config.choices import choose, nearest
from s2snet.models.normalised import Normalised
from s2snet.models.published import Entry


def torchvision_classifier(
    arch: str,
    channels: int = 3,
    classes: int = 1000,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> Normalised:
    """Build the untrained network: images [B, 3, H, W] in [0, 1] -> logits [B, classes], in training mode too.

    Inception v3 and GoogLeNet have no auxiliary heads, and convert ImageNet's normalisation into the one that their
    published weights were trained with, as torchvision does when it loads them. Raises ValueError for an unknown name.
    """
    models = _models()
    choose("classifier.arch", arch, models.list_models(module=models))
    if channels != 3:
        raise ValueError(f"classifier.channels={channels}: {arch} takes 3 (data.channels=3 repeats gray images)")
    inception = {"aux_logits": False, "transform_input": True, "init_weights": True}
    options = inception if arch in ("inception_v3", "googlenet") else {}
    return Normalised(models.get_model(arch, num_classes=classes, **options), mean, std, channels)


def torchvision_weights(arch: str, name: str, setting: str = "classifier.weights") -> Entry:
    """Return the weights that torchvision lists under this name (DEFAULT, IMAGENET1K_V1, ...) for the network.

    Raises ValueError for an unknown name; its message names the `setting`.
    """
    models = _models()
    choose("classifier.arch", arch, models.list_models(module=models))
    entries = models.get_model_weights(arch)
    if name not in entries.__members__:
        near = nearest(name, entries.__members__)
        raise ValueError(f"{setting}={name}{near}: no such file, and {arch} has {', '.join(entries.__members__)}")
    preset, file = entries[name].transforms(), PurePosixPath(entries[name].url)
    hash_prefix = file.stem.rpartition("-")[2]  # torchvision's own convention
    return Entry(entries[name].url, file.name, tuple(preset.mean), tuple(preset.std), preset.crop_size[0], hash_prefix)


def _models():
    torchvision_cpu.patch()
    from torchvision import models

    return models
