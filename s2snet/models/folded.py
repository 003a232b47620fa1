"""Fold BatchNorm into convolutions: a faster copy of a network, for making adversarial images.

Its logits differ from the original's in the last digits, so no verdict is taken from it.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # of the largest output: far above rounding errors, far below those of a wrong fold


def folded(module: nn.Module, probe: Tensor) -> nn.Module:
    """Return a copy of `module` (in eval mode) in channels-last format, each BatchNorm folded into its convolution.

    Pairs are found by running `probe` once. If the copy's outputs for it differ from the original's (a network that
    uses a convolution's output twice, or is random), `module` itself is returned. Three forwards.
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
    """Return each (convolution, BatchNorm) of which the BatchNorm, in eval mode, takes the convolution's own output."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_convolution(layer, inputs, output) -> None:
        outputs[id(output)] = (layer, output)  # the tensor is kept alive, so that its id is not reused

    def before_batch_norm(layer, inputs) -> None:
        if id(inputs[0]) in outputs and not layer.training:
            pair = outputs[id(inputs[0])][0], layer
            if pair not in pairs:  # a network may call a layer more than once
                pairs.append(pair)

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
    return pairs


def _unchanged(x: Tensor) -> Tensor:
    return x
