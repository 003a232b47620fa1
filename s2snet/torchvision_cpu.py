"""Makes `import torchvision` work beside a CPU build of torch, and says what is wrong where it can't.

The published Linux wheel of torchvision is linked to CUDA. Beside a CPU torch its C++ library fails to load, silently,
and `import torchvision` then dies with "operator torchvision::nms does not exist"; so do torchmetrics and
pytorch_lightning, which import it whenever it is installed. Declaring the two operators is enough for all
that this project uses. Rooms that import Lightning or torchmetrics call `mend` first.
"""

_library = None  # keeps the declared operators alive


def mend() -> bool:
    """Whether operators had to be declared. Does nothing on a healthy install or without torchvision."""
    global _library
    import torch

    if torch.version.cuda is not None or _library is not None or _imports():
        return False
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return True


def _imports() -> bool:
    """Whether torchvision is absent or its operators are there, found out without importing torchvision."""
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
