"""Maps of the pixels that a classifier relies on and that an attack favours, their ranks, and regions above a quantile.

After arXiv 2011.10794, of which only the abstract was available; the definitions are this project's own. All functions
take a batch [B, ...] and treat each image separately.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Smooth maps [B, C, H, W] by a Gaussian of `sigma` pixels, cut at 3 sigma; `sigma=0` returns them unchanged.

    The kernel is renormalised at the border, so a constant map does not change.
    """
    if sigma == 0:
        return maps
    reach = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype) / sigma) ** 2)

    def along(x: Tensor) -> Tensor:
        x = functional.conv2d(x, kernel.view(1, 1, -1, 1), padding=(reach, 0))
        return functional.conv2d(x, kernel.view(1, 1, 1, -1), padding=(0, reach))

    flat = maps.flatten(0, 1)[:, None]
    return (along(flat) / along(torch.ones_like(flat[:1]))).view_as(maps)


def ranks(maps: Tensor) -> Tensor:
    """Return each pixel's rank in its map [B, ...], from 0 (lowest) to 1 (highest); ties have their mean rank."""
    flat = maps.flatten(1).contiguous()
    ordered = flat.sort(dim=1).values
    low = torch.searchsorted(ordered, flat)
    high = torch.searchsorted(ordered, flat, right=True)
    return ((low + high - 1) / (2 * max(1, flat.shape[1] - 1))).to(maps.dtype).view_as(maps)


def top(maps: Tensor, q: float) -> Tensor:
    """Return a mask like maps [B, ...]: True for the share `q` of pixels with the highest values of each map.

    Ties are inside or outside together, by their mean rank: a constant map has no region for q up to 0.5.
    """
    pixels = maps[0].numel()
    return ranks(maps) * (pixels - 1) >= pixels - round(q * pixels) - 1e-3


def soft_top(maps: Tensor, q: float, temperature: float) -> Tensor:
    """Return `top` as a sigmoid in [0, 1], differentiable in the maps [B, ...].

    It is 1/2 midway between the lowest value inside and the highest outside; `temperature` is in standard deviations of
    the map.
    """
    flat = maps.flatten(1)
    count = min(max(1, round(q * flat.shape[1])), flat.shape[1] - 1)
    best = flat.topk(count + 1, dim=1).values
    threshold = (best[:, -1:] + best[:, -2:-1]) / 2
    scale = flat.detach().std(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    return torch.sigmoid((flat - threshold) / scale / temperature).view_as(maps)


def gradient_x_input(classifier: nn.Module, images: Tensor, predicted: Tensor, graph: bool = False) -> Tensor:
    """Return |gradient x input| [B, 1, H, W] of the predicted class's logit, summed over channels: a map of importance.

    For a linear classifier these are the logit's terms. One forward and one backward. With `graph` the result can be
    differentiated again. Gradients must be enabled, and `images` must require them.
    """
    logit = classifier(images).gather(1, predicted[:, None]).sum()
    (slope,) = torch.autograd.grad(logit, images, create_graph=graph)
    return (slope * images).abs().sum(dim=1, keepdim=True)


def attack_map(classifier: nn.Module, images: Tensor, predicted: Tensor, starts: Tensor, graph: bool = False) -> Tensor:
    """Return the mean over `starts` [m, C, H, W] of |gradient of J| at images + start, summed over channels.

    The result is [B, 1, H, W]. J = log(odds against the predicted class). The cross-entropy's gradient is J's
    times the probability of the other classes, which float32 rounds to 0 for a confident classifier; with J each start
    has the same weight. No attack runs. m forwards and backwards. `graph` and gradients as in `gradient_x_input`.
    """
    total = torch.zeros_like(images[:, :1])
    for start in starts:
        near = (images + start).clamp(0, 1)
        logits = classifier(near)
        own = functional.one_hot(predicted, logits.shape[1]).bool()
        against = logits.masked_fill(own, -torch.inf).logsumexp(dim=1) - logits[own]
        (slope,) = torch.autograd.grad(against.sum(), near, create_graph=graph)
        total = total + slope.abs().sum(dim=1, keepdim=True)
    return total / len(starts)
