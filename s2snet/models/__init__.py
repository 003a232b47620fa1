"""Networks: purifiers, classifiers, and `Defended`, which puts the one in front of the other. Knows torch only;
torchvision, timm and a user's own module are imported where one of their networks is built.

`MODULES` is every module a weights file may name; `build` makes one from its name and options and keeps both
on it as `.config`, which is what a weights file stores and what a fingerprint covers.
"""

import inspect
from typing import Any

from torch import nn

from s2snet.config.choices import nearest
from s2snet.models.bit_depth import BitDepth
from s2snet.models.cifar_resnet import resnet20, resnet32, resnet44, resnet56
from s2snet.models.custom import custom
from s2snet.models.defended import Defended, Identity, freeze
from s2snet.models.mlp import MLP
from s2snet.models.neutralised import Neutralised, NeutralisedPerInput
from s2snet.models.published import Entry, load_published
from s2snet.models.segnet import SegNet, load_authors, segnet_small
from s2snet.models.small_cnn import SmallCNN
from s2snet.models.subspace import Subspace
from s2snet.models.timm_classifier import timm_classifier, timm_weights
from s2snet.models.torchvision_classifier import torchvision_classifier, torchvision_weights
from s2snet.models.vgg16 import transplant_vgg16

CLASSIFIERS = {
    "small_cnn": SmallCNN,
    "mlp": MLP,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "torchvision": torchvision_classifier,
    "timm": timm_classifier,
    "custom": custom,
}
# Whose weights have names of their own: (arch, name) -> where they are and the input they are for.
ENTRIES = {"torchvision": torchvision_weights, "timm": timm_weights}
AUTOENCODERS = {"segnet": SegNet, "segnet_small": segnet_small}
PURIFIERS = AUTOENCODERS | {  # those that are not trained in stages too
    "bit_depth": BitDepth,
    "subspace": Subspace,
    "neutralised": Neutralised,
    "neutralised_per_input": NeutralisedPerInput,
}
MODULES = CLASSIFIERS | PURIFIERS

__all__ = [
    "AUTOENCODERS",
    "CLASSIFIERS",
    "ENTRIES",
    "MODULES",
    "PURIFIERS",
    "BitDepth",
    "Defended",
    "Entry",
    "Identity",
    "SegNet",
    "SmallCNN",
    "Subspace",
    "build",
    "freeze",
    "load_authors",
    "load_published",
    "segnet_small",
    "timm_weights",
    "torchvision_weights",
    "transplant_vgg16",
]


def build(name: str, **options: Any) -> nn.Module:
    """The module `name` of MODULES with these options, its `.config` = {"name": ..., **options} set.

    ValueError for an unknown name or option, with what is allowed and the nearest match.
    """
    if name not in MODULES:
        raise ValueError(f"unknown module {name!r}{nearest(name, MODULES)}; allowed are {', '.join(MODULES)}")
    allowed = inspect.signature(MODULES[name]).parameters
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"{name} has no option {option!r}{nearest(option, allowed)}; allowed are {', '.join(allowed)}"
            )
    module = MODULES[name](**options)
    defaults = {key: parameter.default for key, parameter in allowed.items()}
    module.config = {"name": name} | _plain(defaults | options)
    return module


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """The options as JSON knows them, so that a config is the same before saving and after loading."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
