"""Networks: purifiers, classifiers, and `Defended`, a purifier in front of a classifier.

Imports torch only; torchvision, timm and a user's own module are imported when one of their networks is built.
`MODULES` lists every module that a weights file may name. `build` makes one from its name and options and keeps both
as `.config`: a weights file stores it, and a fingerprint covers it.

A purifier is an `nn.Module` from images [B, C, H, W] in [0, 1] to images of the same shape, and a line in `PURIFIERS`.
Its options are plain values with defaults; wrong ones raise a one-line ValueError. Two contracts are optional:

- `softens` and `soft(images, temperature)`, for the route `soft`: exact gradients ignore a purifier's hard choices (a
  pooling index, a mask, a rounding). `softens` is True if there are such choices. `soft` then returns the same output,
  bit for bit, differentiated as if the choices were soft ones; as the temperature falls to 0, its gradient becomes the
  exact one. Examples: `SegNet`, `NeutralisedPerInput`, `BitDepth`.
- `encode(images)`, `decode(code)`, `encoder` and `decoder`, for training in two stages (`AUTOENCODERS`, not
  `PURIFIERS`): `decode(encode(images))` is the purifier's output, and the two modules hold its parameters. Stage 1
  trains both halves; stage 2 freezes `encoder`, in eval mode, and trains `decoder`. A code is a tensor [B, ...] or a
  (nested) tuple with such tensors in it; stage 2 may cache it. `pack(code)` and `unpack(packed)` may make a cached code
  smaller. Examples: `UNet`, and `SegNet`, which packs its pooling indices.
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
from s2snet.models.unet import UNet
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
# Libraries with named weights: (arch, name) -> the entry.
ENTRIES = {"torchvision": torchvision_weights, "timm": timm_weights}
AUTOENCODERS = {"segnet": SegNet, "segnet_small": segnet_small, "unet": UNet}
PURIFIERS = AUTOENCODERS | {  # also those that are not trained in two stages
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
    "UNet",
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
    """Build the module `name` of MODULES with these options; set its `.config` = {"name": ..., **options}.

    Raises ValueError for an unknown name or option, with the allowed ones and the nearest match.
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
    """Return the options with lists for tuples, so that a config is the same before saving and after loading."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
