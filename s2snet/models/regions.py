"""Which pixels a classifier looks at and which an attack would move: maps, their ranks, the regions above a quantile.

After arXiv 2011.10794, of which the abstract was at hand; the definitions are this project's own. Everything works on
a batch [B, ...], each image by itself.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Maps [B, C, H, W] after a Gaussian of `sigma` pixels, cut at 3 sigma; a constant stays what it is at the rim too.

    `sigma=0` gives them back.
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
    """The rank of each pixel in its map [B, ...], from 0 (lowest) to 1 (highest); equal pixels share one."""
    flat = maps.flatten(1).contiguous()
    ordered = flat.sort(dim=1).values
    low = torch.searchsorted(ordered, flat)
    high = torch.searchsorted(ordered, flat, right=True)
    return ((low + high - 1) / (2 * max(1, flat.shape[1] - 1))).to(maps.dtype).view_as(maps)


def top(maps: Tensor, q: float) -> Tensor:
    """Bool like maps [B, ...]: the share `q` of pixels with the highest values of each map.

    Equal pixels are in or out together, by the middle of their ranks: a map that is flat has no region for q up to 0.5.
    """
    pixels = maps[0].numel()
    return ranks(maps) * (pixels - 1) >= pixels - round(q * pixels) - 1e-3


def soft_top(maps: Tensor, q: float, temperature: float) -> Tensor:
    """`top` as a sigmoid in [0, 1], differentiable in the maps [B, ...].

    It is 1/2 between the last pixel inside and the first outside; `temperature` is in standard deviations of the map.
    """
    flat = maps.flatten(1)
    count = min(max(1, round(q * flat.shape[1])), flat.shape[1] - 1)
    best = flat.topk(count + 1, dim=1).values
    threshold = (best[:, -1:] + best[:, -2:-1]) / 2
    scale = flat.detach().std(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    return torch.sigmoid((flat - threshold) / scale / temperature).view_as(maps)


def gradient_x_input(classifier: nn.Module, images: Tensor, predicted: Tensor, graph: bool = False) -> Tensor:
    """|gradient x input| [B, 1, H, W] of the predicted class's logit, summed over channels: a map of importance.

    For a linear classifier these are the logit's terms. One forward and one backward. With `graph` it can be
    differentiated again. Gradients are to be on; `images` ask for them.
    """
    logit = classifier(images).gather(1, predicted[:, None]).sum()
    (slope,) = torch.autograd.grad(logit, images, create_graph=graph)
    return (slope * images).abs().sum(dim=1, keepdim=True)


def attack_map(classifier: nn.Module, images: Tensor, predicted: Tensor, starts: Tensor, graph: bool = False) -> Tensor:
    """The mean over `starts` [m, C, H, W] of |gradient of J|, summed over channels, at images + start: [B, 1, H, W].

    J = log(odds against the predicted class). The cross-entropy's gradient is this one times the probability of those
    odds, which float32 rounds to 0 for a sure classifier; so each start weighs alike. Attack-agnostic: no attack runs.
    m forwards and backwards. `graph` and gradients as in `gradient_x_input`.
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
