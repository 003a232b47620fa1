"""SegNet, the S2SNet's autoencoder: an encoder that max-pools with indices, a decoder that unpools by them.

Layer names, order and sizes are those of the authors' release (arXiv 1803.07994, 1803.08337), so their state dicts
load key by key (`load_authors`). Widths and depths scale down for small images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.models.normalised import Normalisation
from s2snet.models.published import fill, inner

UNPOOLINGS = ("indices", "nearest", "learned")


class Code(NamedTuple):
    """The decoder's input: the bottleneck, each pooling's indices, and the size (H, W) before each pooling.

    `shares` are each pooling's indices as a soft assignment, if the encoder was given a temperature.
    """

    bottleneck: Tensor
    indices: tuple[Tensor, ...]
    sizes: tuple[tuple[int, int], ...]
    shares: tuple[Tensor, ...] = ()


def unpool_by_indices(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Place values [B, C, h, w] at their flat `indices` in zeros [B, C, *size].

    Equal bit for bit to `max_unpool2d` and, unlike it, deterministic: 2x2 windows never overlap.
    """
    flat = values.new_zeros(*values.shape[:2], size[0] * size[1])
    return flat.scatter(2, indices.flatten(2), values.flatten(2)).unflatten(2, size)


def pack_indices(code: Code) -> Tensor:
    """Return a code's pooling indices as bytes [B, N], two bits each: which of its window's 2 x 2 places each took."""
    choices = [
        (indices // width % 2 * 2 + indices % width % 2).to(torch.uint8).flatten(1)
        for indices, (_, width) in zip(code.indices, code.sizes, strict=True)
    ]
    choices = torch.cat(choices, dim=1)
    choices = functional.pad(choices, (0, -choices.shape[1] % 4)).unflatten(1, (-1, 4))
    return choices[..., 0] | choices[..., 1] << 2 | choices[..., 2] << 4 | choices[..., 3] << 6


def unpack_indices(
    packed: Tensor, shapes: Sequence[tuple[int, int, int]], sizes: Sequence[tuple[int, int]]
) -> tuple[Tensor, ...]:
    """Return the indices that `pack_indices` turned into bytes.

    Each pooling's have a shape (C, h, w), and it pooled values of a size (H, W).
    """
    choices = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)
    indices, start = [], 0
    for (channels, height, width), (_, full_width) in zip(shapes, sizes, strict=True):
        count = channels * height * width
        choice = choices[:, start : start + count].unflatten(1, (channels, height, width)).long()
        start += count
        rows = torch.arange(height, device=packed.device)[:, None] * 2
        columns = torch.arange(width, device=packed.device) * 2
        indices.append((rows + (choice >> 1)) * full_width + columns + (choice & 1))
    return tuple(indices)


def soft_shares(x: Tensor, temperature: float) -> Tensor:
    """Return each value's share [B, C, H, W] of its 2x2 pooling window: softmax(x / temperature).

    As the temperature falls to 0 the maximum's share becomes 1. Values outside all windows (the last row or column of
    an odd side) have 0.
    """
    height, width = x.shape[2] // 2, x.shape[3] // 2
    windows = x[:, :, : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2))
    shares = (windows.transpose(3, 4).flatten(4) / temperature).softmax(dim=4)
    shares = shares.unflatten(4, (2, 2)).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return functional.pad(shares, (0, x.shape[3] - 2 * width, 0, x.shape[2] - 2 * height))


def _spread(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat each value at all four places of its pooling window; places outside all windows are 0."""
    spread = values.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return functional.pad(spread, (0, size[1] - spread.shape[3], 0, size[0] - spread.shape[2]))


def _block(module: nn.Module, name: str, channels: tuple[int, int], suffix: str, bn_momentum: float) -> None:
    module.add_module(f"conv{name}{suffix}", nn.Conv2d(*channels, kernel_size=3, padding=1))
    module.add_module(f"bn{name}{suffix}", nn.BatchNorm2d(channels[1], momentum=bn_momentum))


class Encoder(nn.Module):
    """Stages of conv-BatchNorm-ReLU, each followed by a 2x2 max pooling that returns its indices."""

    def __init__(self, channels: int, widths: Sequence[int], convs: Sequence[int], bn_momentum: float):
        super().__init__()
        self.convs = tuple(convs)
        width = channels
        for stage, (out, count) in enumerate(zip(widths, convs, strict=True), start=1):
            for layer in range(1, count + 1):
                _block(self, f"{stage}{layer}", (width, out), "", bn_momentum)
                width = out

    def forward(self, x: Tensor, temperature: float | None = None) -> Code:
        indices, sizes, shares = [], [], []
        for stage, count in enumerate(self.convs, start=1):
            for layer in range(1, count + 1):
                name = f"{stage}{layer}"
                x = functional.relu(getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x)))
            sizes.append((x.shape[2], x.shape[3]))
            if temperature is not None:
                shares.append(soft_shares(x, temperature))
            x, index = functional.max_pool2d(x, 2, 2, return_indices=True)
            indices.append(index)
        return Code(x, tuple(indices), tuple(sizes), tuple(shares))


class Decoder(nn.Module):
    """The encoder in mirror: unpool, conv-BatchNorm-ReLU; the last layer is a bare 1x1 convolution."""

    def __init__(self, channels: int, widths: Sequence[int], convs: Sequence[int], unpool: str, bn_momentum: float):
        super().__init__()
        self.convs = tuple(convs)
        self.unpool = unpool
        for stage in range(len(widths), 0, -1):
            width = widths[stage - 1]
            below = widths[stage - 2] if stage > 1 else width
            if unpool == "learned":
                self.add_module(f"unpool{stage}", nn.ConvTranspose2d(width, width, 2, stride=2, groups=width))
            for layer in range(convs[stage - 1], 0, -1):
                out = below if layer == 1 else width
                _block(self, f"{stage}{layer}", (width, out), "d", bn_momentum)
        self.conv_final = nn.Conv2d(widths[0], channels, kernel_size=1)

    def _up(self, x: Tensor, code: Code, stage: int) -> Tensor:
        size = code.sizes[stage - 1]
        if self.unpool == "indices":
            placed = unpool_by_indices(x, code.indices[stage - 1], size)
            if not code.shares:
                return placed
            # Adds exactly 0 to the value, and to the gradient the effect of an index that changes.
            shares = code.shares[stage - 1]
            return placed + (shares - shares.detach()) * _spread(x.detach(), size)
        if self.unpool == "nearest":
            return functional.interpolate(x, size=size, mode="nearest")
        return getattr(self, f"unpool{stage}")(x, output_size=size)

    def forward(self, code: Code) -> Tensor:
        x = code.bottleneck
        for stage in range(len(self.convs), 0, -1):
            x = self._up(x, code, stage)
            for layer in range(self.convs[stage - 1], 0, -1):
                name = f"{stage}{layer}d"
                x = functional.relu(getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x)))
        return self.conv_final(x)


class SegNet(nn.Module):
    """A purifier: images [B, C, H, W] in [0, 1] -> images of the same shape, not clipped.

    Works on any side of at least 2 ** len(widths). The defaults are the authors' network with 29,480,259 parameters.
    `unpool`: by the encoder's pooling `indices`, as the authors do (the index maps carry more bits than the image), or
    without them, by `nearest`-neighbour upsampling or a `learned` transposed convolution.

    Images are normalised by `mean` and `std` before the encoder, and denormalised after the decoder: a classifier with
    the same normalisation receives the decoder's output as it is.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        convs: Sequence[int] = (2, 2, 3, 3, 3),
        unpool: str = "indices",
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        bn_momentum: float = 0.1,
    ):
        super().__init__()
        if unpool not in UNPOOLINGS:
            raise ValueError(f"unpool={unpool!r}: allowed are {', '.join(UNPOOLINGS)}")
        if len(widths) != len(convs) or not widths:
            raise ValueError(f"widths={list(widths)} and convs={list(convs)} must have the same length, at least 1")
        self.normalisation = Normalisation(mean, std, channels)
        self.encoder = Encoder(channels, widths, convs, bn_momentum)
        self.decoder = Decoder(channels, widths, convs, unpool, bn_momentum)
        self.widths = tuple(widths)
        self.minimum_side = 2 ** len(widths)

    @property
    def has_indices(self) -> bool:
        """Return whether the decoder unpools by indices."""
        return self.decoder.unpool == "indices"

    @property
    def softens(self) -> bool:
        """Return whether `soft` has another gradient than a plain pass."""
        return self.has_indices

    def encode(self, images: Tensor, temperature: float | None = None) -> Code:
        if min(images.shape[2:]) < self.minimum_side:
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} are too small for "
                f"{self.minimum_side.bit_length() - 1} poolings: the shorter side must be at least "
                f"{self.minimum_side}. Pad or resize the images, or take fewer widths"
            )
        return self.encoder(self.normalisation(images), temperature)

    def decode(self, code: Code) -> Tensor:
        return self.normalisation.undo(self.decoder(code))

    def pack(self, code: Code) -> Code:
        """Return the code as it is cached: its indices, if the decoder reads any, as bytes in one tensor [B, N]."""
        return code._replace(indices=(pack_indices(code),) if self.has_indices else ())

    def unpack(self, packed: Code) -> Code:
        """Return the code that `pack` was given, without indices if the decoder reads none."""
        if not self.has_indices:
            return packed
        (choices,) = packed.indices
        shapes = [(width, side[0] // 2, side[1] // 2) for width, side in zip(self.widths, packed.sizes, strict=True)]
        return packed._replace(indices=unpack_indices(choices, shapes, packed.sizes))

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))

    def soft(self, images: Tensor, temperature: float) -> Tensor:
        """Return the same output bit for bit, differentiated as if each pooling's index were a soft assignment.

        An index is piecewise constant, so autograd differentiates only the values it moves. Here the gradient has a
        second term: the derivative of softmax(window / temperature) times the value to be placed. At a low temperature
        only windows with near-ties contribute; as it falls to 0 the term vanishes. Costs one pass and a fifth more
        memory. This project's own, for attackers who know the index maps.
        """
        return self.decode(self.encode(images, temperature))


def segnet_small(
    channels: int = 1,
    widths: Sequence[int] = (16, 32, 64),
    convs: Sequence[int] = (1, 1, 2),
    unpool: str = "nearest",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
    bn_momentum: float = 0.1,
) -> SegNet:
    """Build a SegNet for images of 28 to 64 pixels; it trains in a minute on two cores."""
    return SegNet(channels, widths, convs, unpool, mean, std, bn_momentum)


_PREFIXES = ("module.", "segnet.", "resnet.", "encoder.", "decoder.", "classifier.")


class Loaded(NamedTuple):
    """The result of `load_authors`: the number of tensors loaded, and the keys of the file that were not used."""

    matched: int
    left_over: tuple[str, ...]


def load_authors(segnet: SegNet, state: dict) -> Loaded:
    """Load a state dict of the authors' release into `segnet`.

    Accepts what their loader accepts: the dict itself or one under `model_state`, keys as str or bytes, any chain of
    the prefixes `module.`, `segnet.`, `encoder.`, ... Unlike theirs, it raises ValueError unless every weight, bias and
    running statistic is present in its shape: a mismatch would silently leave random layers. Only
    `num_batches_tracked` may be missing (old files lack it).
    """
    given = {_flat_name(key): tensor for key, tensor in inner(state, "model_state").items()}
    own = {
        key.split(".", 1)[1]: tensor
        for key, tensor in segnet.state_dict().items()
        if key.startswith(("encoder.", "decoder."))
    }
    try:
        fill(own, given, left_over_allowed=True)
    except ValueError as error:
        raise ValueError(f"not the weights of this SegNet: {error}") from None
    return Loaded(sum(key in given for key in own), tuple(key for key in given if key not in own))


def _flat_name(key: str) -> str:
    """Return the key without its wrappers' prefixes; the layers' names are unique without them."""
    return key[max((key.rfind(prefix) + len(prefix) for prefix in _PREFIXES if prefix in key), default=0) :]
