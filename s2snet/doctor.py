"""Check the installation: `python -m s2snet.doctor` prints a line per finding, with its fix. Exit code 1 if broken."""

import importlib
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Iterator

PAIR_FIX = "pip install -c constraints.txt torch torchvision"


def findings() -> Iterator[tuple[str, str]]:
    """Yield (ok | note | broken, one line) for Python, the packages, the device and the working folder."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        yield "ok", f"Python {version}"
    else:
        yield (
            "broken",
            f"Python {version}: hydra-core 1.3 needs 3.11 to 3.13; recreate the environment",
        )
    try:
        import torch
    except ImportError as error:
        yield "broken", f"torch cannot be imported ({error}): {PAIR_FIX}"
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield "ok", f"torch {torch.__version__} ({build})"
    yield from _torchvision(torch)
    for module in ("pytorch_lightning", "torchmetrics", "hydra", "pyarrow", "sklearn"):
        try:
            importlib.import_module(module)
        except Exception as error:
            yield "broken", f"{module} cannot be imported ({_short(error)}): pip install -c constraints.txt -e ."
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    yield "ok", f"device: {device}, {os.cpu_count()} cores"
    try:
        with tempfile.TemporaryFile(dir="."):
            yield "ok", "the working folder is writable"
    except OSError as error:
        yield "broken", f"the working folder is not writable ({error.strerror}): set runs=FOLDER and output=FOLDER"


def _torchvision(torch) -> Iterator[tuple[str, str]]:
    from s2snet.torchvision_cpu import patch

    try:
        installed = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        yield "broken", f"torchvision is not installed: {PAIR_FIX}"
        return
    required = _required_torch()
    if required and required != torch.__version__.partition("+")[0]:
        yield "broken", f"torchvision {installed} needs torch {required}, got {torch.__version__}: {PAIR_FIX}"
    patched = patch()
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        yield "broken", f"torchvision {installed} cannot be imported ({_short(error)}): {PAIR_FIX}"
        return
    if patched:
        yield (
            "note",
            f"torchvision {installed} is linked to CUDA and torch is a CPU build: its operators (nms, video, image "
            "codecs) cannot be loaded; s2snet does not use them and declares those needed for the import",
        )
    else:
        yield "ok", f"torchvision {installed}"


def _required_torch() -> str | None:
    """Return the exact version of torch that the installed torchvision requires, or None."""
    for requirement in importlib.metadata.requires("torchvision") or []:
        match = re.match(r"torch\s*==\s*([\w.]+)", requirement)
        if match:
            return match[1]
    return None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def main() -> None:
    broken = False
    for state, line in findings():
        print(f"{state:6} {line}")
        broken |= state == "broken"
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
