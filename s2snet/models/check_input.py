"""Whether a network can take the images of a data set and tell its classes apart, asked before work begins."""

import torch
from torch import nn


def check_input(module: nn.Module, name: str, channels: int, size: int, classes: int | None = None) -> None:
    """ValueError, in one line, where the module cannot take images [2, channels, size, size].

    One forward pass, in eval mode; the module is left as it was. `classes` is how many the data have: a classifier
    whose config says another number is refused. None asks for nothing.
    """
    has = getattr(module, "config", {}).get("classes")
    if classes is not None and has is not None and has != classes:
        raise ValueError(
            f"{name} tells {has} classes apart and the data have {classes}; data.classes={has} is allowed where labels "
            "are numbers below that"
        )
    weight = next(module.parameters(), torch.empty(0))
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            module(weight.new_zeros(2, channels, size, size))
    except Exception as error:  # whatever a network raises on images that it is not made for
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} cannot take images of {channels} x {size} x {size}: {said}") from error
    finally:
        for part, mode in modes:
            part.training = mode
