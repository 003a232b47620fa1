"""Load published state dicts into modules of this project: all tensors, or none."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Auxiliary heads, for training only, that some published files contain and no network here has.
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")


class Entry(NamedTuple):
    """Published weights: their source, their file name, and the normalisation and size they were trained for."""

    url: str
    file: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int  # pixels per side in their published evaluation
    hash_prefix: str | None = None  # first characters of the file's SHA-256, if published


def load_published(module: nn.Module, state: Mapping[Any, Any]) -> None:
    """Load a published state dict into a module of this project, except for the module's own normalisation.

    Accepts the dict itself or one under `state_dict`, with or without the prefix `module.`, of any floating-point type:
    the module keeps its own. Raises ValueError unless every tensor of the module is present in its shape and nothing
    but auxiliary heads is left over.
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
    """Return the state dict under that key of a checkpoint, or the dict itself if it has no such key; keys as text."""
    inside = state[under] if isinstance(state.get(under), Mapping) else state
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in inside.items()}


def fill(own: Mapping[str, Tensor], given: Mapping[str, Any], left_over_allowed: bool = False) -> None:
    """Copy each given tensor into the own one of its name, all or none.

    Raises a one-line ValueError unless all own tensors are given in their shapes and, without `left_over_allowed`, no
    others. Only `num_batches_tracked` may be missing: old files lack it, and nothing here reads it.
    """
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    wrong = {
        "missing": [key for key in needed if key not in given],
        "of another shape": [key for key in own if key in given and not _fits(given[key], own[key])],
        "left over": [] if left_over_allowed else [key for key in given if key not in own],
    }
    if any(wrong.values()):
        fitting = sum(key in given and _fits(given[key], own[key]) for key in needed)
        lists = "; ".join(f"{fault}: {_first(keys)}" for fault, keys in wrong.items() if keys)
        raise ValueError(f"{fitting} of {len(needed)} tensors fit; {lists}")
    with torch.no_grad():
        for key, tensor in own.items():
            if key in given:
                tensor.copy_(given[key])


def _fits(given: Any, own: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == own.shape


def _first(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
