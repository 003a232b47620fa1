"""Save and load modules as .safetensors files whose header holds, as JSON, what is needed to rebuild them.

`load` builds the module by its name in `s2snet.models.MODULES` and fills it with the file's tensors. Nothing in the
file is executed, and the code of a user's own classifier is imported only if the caller trusts it. `read_tensors` and
`load_published` read state dicts of other projects. `fingerprint` identifies a module by its architecture and tensors.
"""

import hashlib
import json
import pickle
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from s2snet import models
from s2snet.atomic_io import write_whole
from s2snet.store import paths, remote

FORMAT = 1
_KEY = "s2snet"  # one key: safetensors writes several in random order, so equal files would differ


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 (hex) of a module's architecture, parameters and buffers (name, type, shape, bytes).

    The architecture is `.config` if `models.build` made the module, else its printed form. Path, device, memory format
    and training mode do not change it.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(_architecture(module), sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _architecture(module: nn.Module) -> Any:
    if isinstance(module, models.Defended):
        return {name: _architecture(part) for name, part in module.named_children()}
    return getattr(module, "config", None) or f"{type(module).__module__}.{type(module).__qualname__} {module}"


def save(module: nn.Module, path: str | Path, **facts: Any) -> dict[str, Any]:
    """Write a module of `models.build` with its facts (data, metrics, command, ...) and return the header.

    The file is written atomically (s2snet/atomic_io.py).
    """
    header = {
        "format": FORMAT,
        "module": module.config,
        "fingerprint": fingerprint(module),
        **facts,
        "versions": versions(),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_whole(Path(path), serialise(tensors, metadata={_KEY: json.dumps(header, sort_keys=True)}))
    return header


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the JSON header of a weights file, on disk or at hf://user/repo/file, if this version reads its format."""
    return _read(path, tensors=False)[0]


def load(path: str | Path, device: str | torch.device = "cpu", trusted: str | None = None) -> nn.Module:
    """Return the module of a weights file, in eval mode on `device`, with its header at `.header`.

    `trusted` is the one target (`my_package.my_module:build`) whose code may be imported and called, with whatever
    options the header has, if the file holds a user's own classifier. `path` may be an address on the Hugging Face hub,
    hf://user/repo/file (s2snet/store/remote.py).

    ValueError, in one line, for a file that is missing, truncated or not of this project, for a module that this
    version does not know, and for tensors that do not fit the architecture.
    """
    header, tensors = _read(path, tensors=True)
    _trust(path, header["module"], trusted)
    try:
        module = models.build(**header["module"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - expected.keys())
    reshaped = sorted(key for key in expected.keys() & tensors.keys() if expected[key].shape != tensors[key].shape)
    for what, keys in (("missing", missing), ("left over", left_over), ("of another shape", reshaped)):
        if keys:
            raise ValueError(
                f"{path}: its tensors do not fit {header['module']['name']}: {len(keys)} {what} "
                f"({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            )
    module.load_state_dict(tensors)
    module.config = header["module"]  # without today's defaults: an option added later must not change a fingerprint
    if fingerprint(module) != header["fingerprint"]:
        raise ValueError(f"{path}: its tensors do not match its header (the fingerprint differs)")
    module.header = header
    return module.to(device).eval()


def _trust(path: str | Path, config: Any, trusted: str | None) -> None:
    """ValueError if the config, or that of a classifier inside, names code other than the trusted."""
    if not isinstance(config, dict):
        return
    _trust(path, config.get("classifier"), trusted)
    if config.get("name") != "custom" or config.get("target") == trusted is not None:
        return
    given = "none was given" if trusted is None else f"not {trusted}"
    raise ValueError(
        f"{path}: loading it runs the code {config.get('target')!r}; if you trust it, give exactly that as "
        f"classifier.target, or in Python as load(..., trusted=...) ({given})"
    )


def load_published(path: str | Path, **config: Any) -> nn.Module:
    """Return the module `models.build(**config)` with a published state dict, in eval mode.

    ValueError, in one line, for the reasons of `read_tensors` and for tensors that do not fit.
    """
    module = models.build(**config)
    tensors = read_tensors(path)
    try:
        models.load_published(module, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: not the weights of this {paths.network_name(config)}: {error}") from None
    return module.eval()


def with_header(module: nn.Module, stage: str, channels: int, size: int) -> nn.Module:
    """Return the module in eval mode, with a header like that of a weights file."""
    module.eval()
    module.header = {
        "stage": stage,
        "fingerprint": fingerprint(module),
        "input": {"channels": channels, "size": size},
    }
    return module


def read_tensors(path: str | Path) -> dict[Any, Any]:
    """Return the state dict in a foreign file: .safetensors, or a pickle (.th, .pth, .pt, ...) written by torch.save.

    A pickle is read with `weights_only`: nothing in it is executed. ValueError, in one line, for a file that is
    missing, damaged, would run code, or holds no dict.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: not a plain state dict ({_line(error)})") from None
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{path}: damaged or not a state dict ({_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {type(content).__name__}, not a state dict")
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _read(path: str | Path, tensors: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    local = remote.local(path)
    if not local.is_file():
        raise ValueError(f"{path}: no such weights file")
    try:
        with safe_open(local, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "null"))
            content = {key: file.get_tensor(key) for key in file.keys()} if tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: truncated or not a .safetensors file ({error})") from None
    if not isinstance(header, dict) or not {"format", "module", "fingerprint"} <= header.keys():
        raise ValueError(f"{path}: a .safetensors file, but not one that s2snet wrote (no header)")
    if header["format"] != FORMAT:
        raise ValueError(f"{path}: weights format {header['format']}; this version reads {FORMAT}")
    return header, content


def versions() -> dict[str, str]:
    """Return the versions of the packages that influence a result."""
    by_package = {}
    for package in ("s2snet", "torch", "pytorch-lightning"):
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            by_package[package] = "not installed"
    return by_package
