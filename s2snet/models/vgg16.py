"""Initialise a SegNet's encoder, which is VGG16 with BatchNorm, with VGG16's convolutions (arXiv 1803.07994)."""

from collections.abc import Mapping
from typing import Any

from s2snet.models.published import fill
from s2snet.models.segnet import SegNet

# Index of each convolution in torchvision's vgg16().features: its name in the encoder.
LAYERS = {
    0: "conv11", 2: "conv12",
    5: "conv21", 7: "conv22",
    10: "conv31", 12: "conv32", 14: "conv33",
    17: "conv41", 19: "conv42", 21: "conv43",
    24: "conv51", 26: "conv52", 28: "conv53",
}  # fmt: skip


def transplant_vgg16(segnet: SegNet, state: Mapping[str, Any]) -> int:
    """Copy the weights and biases of a torchvision VGG16's 13 convolutions into the encoder; return their number, 26.

    BatchNorm and decoder do not change. Raises a one-line ValueError, and copies nothing, unless all 26 tensors are
    present and the encoder has exactly these layers (widths 64, 128, 256, 512, 512; 3 channels).
    """
    own = {key: value for key, value in segnet.encoder.state_dict().items() if key.startswith("conv")}
    given = {
        f"{name}.{kind}": state[f"features.{place}.{kind}"]
        for place, name in LAYERS.items()
        for kind in ("weight", "bias")
        if f"features.{place}.{kind}" in state
    }
    try:
        fill(own, given)
    except ValueError as error:
        raise ValueError(f"VGG16 does not fit this encoder: {error}") from None
    return len(own)
