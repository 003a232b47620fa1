"""Check, before work begins, that a network takes the images of a data set and predicts its classes."""

import torch
from torch import nn


def check_input(module: nn.Module, name: str, channels: int, size: int, classes: int | None = None) -> None:
    """Raise a one-line ValueError if the module cannot take images [2, channels, size, size].

    `classes` is the data set's number of classes: a classifier whose config has another number is refused; None skips
    that check. One forward pass, in eval mode; the module's modes are restored.
    """
    predicted = getattr(module, "config", {}).get("classes")
    if classes is not None and predicted is not None and predicted != classes:
        raise ValueError(
            f"{name} predicts {predicted} classes; the data set has {classes}. data.classes={predicted} is allowed if "
            f"its labels are numbers below {predicted}"
        )
    weight = next(module.parameters(), torch.empty(0))
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            module(weight.new_zeros(2, channels, size, size))
    except Exception as error:  # a network may raise anything on images that it is not built for
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} cannot take images of {channels} x {size} x {size}: {reason}") from error
    finally:
        for part, mode in modes:
            part.training = mode
