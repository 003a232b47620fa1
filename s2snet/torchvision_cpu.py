"""Make `import torchvision` work with a CPU build of torch.

The published Linux wheel of torchvision is linked to CUDA. With a CPU build of torch its C++ library silently fails to
load, and `import torchvision` raises "operator torchvision::nms does not exist"; so do torchmetrics and
pytorch_lightning, which import torchvision if it is installed. Declaring the two operators is enough for everything
this project uses. Modules that import Lightning or torchmetrics call `patch` first.
"""

_library = None  # keeps the declared operators alive


def patch() -> bool:
    """Declare torchvision's operators if its C++ library cannot be loaded, and return True if that was necessary.

    Does nothing if the library loads or torchvision is not installed.
    """
    global _library
    import torch

    if torch.version.cuda is not None or _library is not None or _is_importable():
        return False
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return True


def _is_importable() -> bool:
    """Return True if torchvision is absent or its C++ library loads, without importing torchvision."""
    import importlib.util

    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return True
    from pathlib import Path

    library = next(Path(spec.origin).parent.glob("_C.*"), None)
    if library is None:
        return False
    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True
