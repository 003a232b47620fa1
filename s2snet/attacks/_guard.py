"""Validate the arguments of attacks, and restore the model and the caller's state afterwards."""

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
    """Raise a one-line ValueError if an argument of an attack is invalid. Each of `counts` must be at least 1."""
    if images.dtype not in (torch.float32, torch.float64) or not 2 <= images.dim() <= 4:
        raise ValueError(f"images: expected float32 [B, ...] of rank 2 to 4, got {images.dtype} of rank {images.dim()}")
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and (classes.dtype != torch.int64 or classes.shape != images.shape[:1]):
            raise ValueError(f"{name}: expected int64 ({len(images)},), got {classes.dtype} {tuple(classes.shape)}")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images: expected values in [0, 1], got {images.min():.9g} to {images.max():.9g}. Move the "
            "normalisation into the classifier (s2snet.models.normalised.Normalisation)"
        )
    if norm not in norms:
        raise ValueError(f"norm={norm!r}: allowed are {', '.join(norms)}")
    if eps is not None:
        if not eps >= 0:
            raise ValueError(f"eps={eps}: must be at least 0")
        if norm == "linf" and eps > 1:
            raise ValueError(f"eps={eps:g}: radii are in [0, 1] pixel units; did you mean {eps:g}/255?")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1")


@contextmanager
def untouched(model: Callable[[Tensor], Tensor], seed: int = 0) -> Iterator[None]:
    """Enable gradients inside the context, and restore the model and all random states on exit.

    Restored, also after an exception: each submodule's mode, each parameter's requires_grad and .grad, each buffer,
    and the random states of torch, numpy and Python. The modes are not changed inside the context. Torch's global
    generators start from `seed`, so the outputs of a randomised model are reproducible.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    gradient_states = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
    ]
    # Seed each generator separately: torch.manual_seed would also set a seed for devices not initialised yet.
    cuda_ready = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = list(range(torch.cuda.device_count())) if cuda_ready else []
    numpy = sys.modules.get("numpy")
    states = random.getstate(), numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            for generator in [torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)]:
                generator.manual_seed(seed)
            for parameter in parameters:
                parameter.requires_grad_(False)  # avoids building a graph for unused gradients
            yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, (requires_grad, grad) in zip(parameters, gradient_states, strict=True):
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                if buffer is not None and not torch.equal(buffer, value):
                    buffer.copy_(value)
