"""State dicts from elsewhere, put into modules of this project: every tensor fits, or nothing is taken."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Heads that some published files hold for training and that no network here has.
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")


class Entry(NamedTuple):
    """Published weights: where they come from, under which file name they lie, and the input they are for."""

    url: str
    file: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int  # pixels a side at which they were measured
    hash_prefix: str | None = None  # with which the file's SHA-256 begins, where that is published


def load_published(module: nn.Module, state: Mapping[Any, Any]) -> None:
    """Loads a published state dict into a module of this project; its normalisation stays the module's own.

    Takes the dict itself or one under `state_dict`, with or without the prefix `module.`, of any floating type: the
    module's type stays. ValueError unless every tensor of the module is there in its shape and none is left over but
    auxiliary heads.
    """
    own = {
        key.removeprefix("network."): value
        for key, value in module.state_dict().items()
        if not key.startswith("normalisation.")
    }
    given = {
        key if key in own else key.removeprefix("module."): value
        for key, value in inner(state, "state_dict").items()
        if not key.startswith(_AUXILIARY)
    }
    fill(own, given)


def inner(state: Mapping[Any, Any], under: str) -> dict[str, Any]:
    """The state dict under that key of a checkpoint, or the dict itself where it has none; keys as text."""
    found = state[under] if isinstance(state.get(under), Mapping) else state
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}


def fill(own: Mapping[str, Tensor], given: Mapping[str, Any], left_over_allowed: bool = False) -> None:
    """Copies each given tensor into the own one of its name, all or none.

    ValueError, in one line, unless all own tensors are given in their shapes and, where that is asked, none is left
    over. Only `num_batches_tracked` may be missing: old files lack it, and nothing here reads it.
    """
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    wrong = {
        "missing": [key for key in needed if key not in given],
        "of another shape": [key for key in own if key in given and not _fits(given[key], own[key])],
        "left over": [] if left_over_allowed else [key for key in given if key not in own],
    }
    if any(wrong.values()):
        fitting = sum(key in given and _fits(given[key], own[key]) for key in needed)
        lists = "; ".join(f"{what}: {_some(keys)}" for what, keys in wrong.items() if keys)
        raise ValueError(f"{fitting} of {len(needed)} tensors fit; {lists}")
    with torch.no_grad():
        for key, tensor in own.items():
            if key in given:
                tensor.copy_(given[key])


def _fits(given: Any, own: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == own.shape


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
