"""What every attack does around its own lines: refuse bad input, leave module and caller untouched."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def check(
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    norm: str,
    norms: Sequence[str],
    eps: float | None = None,
    **counts: int,
) -> None:
    """ValueError, in one line with the remedy, for what an attack cannot take. `counts` are at least 1."""
    if images.dtype not in (torch.float32, torch.float64) or not 2 <= images.dim() <= 4:
        raise ValueError(
            f"images are {images.dtype} of rank {images.dim()}; attacks want float32 [B, ...] of rank 2 to 4"
        )
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and (classes.dtype != torch.int64 or classes.shape != images.shape[:1]):
            raise ValueError(f"{name} are {classes.dtype} {tuple(classes.shape)}; attacks want int64 ({len(images)},)")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images reach from {images.min():.9g} to {images.max():.9g}; attacks want [0, 1]. Put the "
            "normalisation into the classifier (s2snet.models.normalised.Normalisation)"
        )
    if norm not in norms:
        raise ValueError(f"norm={norm!r}: allowed are {', '.join(norms)}")
    if eps is not None:
        if not eps >= 0:
            raise ValueError(f"eps={eps}: a radius is at least 0")
        if norm == "linf" and eps > 1:
            raise ValueError(f"eps={eps:g}: radii are in [0, 1] pixel units; did you mean {eps:g}/255?")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1")


@contextmanager
def untouched(model: Callable[[Tensor], Tensor], seed: int = 0) -> Iterator[None]:
    """Gradients on; and on leaving, also by an exception, the module and all random states are as before.

    Restored: each submodule's mode, each parameter's requires_grad and .grad, each buffer, the random states
    of torch, numpy and Python. Modes are read here and not changed: the module is attacked as it is. Inside,
    torch's global generators start from `seed`, so that a randomised module's answers repeat.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    wanted = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
    ]
    # torch.manual_seed would also leave a seed for devices that are not initialised yet: each generator by
    # itself
    started = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = list(range(torch.cuda.device_count())) if started else []
    numpy = sys.modules.get("numpy")
    states = random.getstate(), numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            for generator in [torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)]:
                generator.manual_seed(seed)
            for parameter in parameters:
                parameter.requires_grad_(False)  # no graph for gradients that nobody reads
            yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, (requires_grad, grad) in zip(parameters, wanted, strict=True):
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                if buffer is not None and not torch.equal(buffer, value):
                    buffer.copy_(value)
