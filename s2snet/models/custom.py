"""A user's own classifier, built by `package.module:function` and checked to return logits."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from s2snet.config.choices import nearest


class Custom(nn.Module):
    """A classifier: images [B, C, H, W] in [0, 1] -> logits [B, classes] of a user's `network`.

    Normalisation belongs inside the network. Raises ValueError if the network returns anything else, in eval and in
    training mode. A fingerprint covers target, options and tensors, not the network's code: changed code needs a new
    target or option.
    """

    def __init__(self, network: nn.Module, target: str, classes: int):
        super().__init__()
        self.network, self.target, self.classes = network, target, classes

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if shape != (len(images), self.classes):
            mode = "training" if self.training else "eval"
            expected = (len(images), self.classes)
            raise ValueError(f"{self.target}: wrong shape in {mode} mode: expected logits {expected}, got {shape}")
        return logits


def custom(target: str, options: Mapping[str, Any] | None = None, classes: int = 10) -> Custom:
    """Import the target (also from the working folder), call it with the options and wrap the module it returns.

    This runs the target's code. Raises a one-line ValueError if there is no such module or function, if the call fails,
    and if the result is not a module or stays in training mode after `.eval()`.
    """
    function = _import(target)
    try:
        network = function(**(options or {}))
    except Exception as error:
        raise ValueError(f"classifier.target={target}: the call failed ({_line(error)})") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"classifier.target={target}: returned {type(network).__name__}, not a torch.nn.Module")
    network.eval()
    if network.training:
        raise ValueError(f"classifier.target={target}: its module stays in training mode after .eval()")
    return Custom(network.train(), target, classes)


def _import(target: str) -> Callable[..., Any]:
    module, colon, name = str(target).partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), name]):
        raise ValueError(f"classifier.target={target}: write my_package.my_module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that no file there shadows an installed package
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"classifier.target={target}: {module} cannot be imported ({_line(error)})") from error
        raise ValueError(f"classifier.target={target}: no module {error.name}, here or installed") from None
    except Exception as error:
        raise ValueError(f"classifier.target={target}: {module} cannot be imported ({_line(error)})") from error
    function = getattr(imported, name, None)
    if not callable(function):
        public = [key for key, value in vars(imported).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"classifier.target={target}{nearest(name, public)}: {module} has no function {name!r}")
    return function


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
