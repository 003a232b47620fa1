"""A faster copy of a network for making adversarial images: BatchNorm folded into the convolutions, channels last.

Its logits differ from the original's in the last digits, so no verdict is ever taken from it.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # of the largest logit: far above rounding, far below a wrong fold


def folded(module: nn.Module, probe: Tensor) -> nn.Module:
    """A copy of `module` (in eval mode) with each BatchNorm that directly follows a convolution folded into it.

    Pairs are found by running `probe` once. Where the copy's answers to it are not the original's (a network that
    uses a convolution's output twice, or answers at random) the module itself comes back. Three forwards.
    """
    with torch.no_grad():
        expected = module(probe)
        copied = copy.deepcopy(module)
        for convolution, batch_norm in _pairs(copied, probe):
            fused = fuse_conv_bn_eval(convolution, batch_norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            batch_norm.forward = _unchanged
        copied = copied.to(memory_format=torch.channels_last)
        difference = (copied(probe) - expected).abs().max()
    return copied if difference <= TOLERANCE * expected.abs().max() else module


def _pairs(module: nn.Module, probe: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each (convolution, BatchNorm) where the one's output is the other's very input, both in eval mode."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_convolution(layer, inputs, output) -> None:
        made[id(output)] = (layer, output)  # the tensor is held, so that its id stays its own

    def before_batch_norm(layer, inputs) -> None:
        if id(inputs[0]) in made and not layer.training:
            pair = made[id(inputs[0])][0], layer
            if pair not in found:  # a network may ask a part of it more than once
                found.append(pair)

    hooks = [
        layer.register_forward_hook(after_convolution)
        if isinstance(layer, nn.Conv2d)
        else layer.register_forward_pre_hook(before_batch_norm)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        module(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _unchanged(x: Tensor) -> Tensor:
    return x
