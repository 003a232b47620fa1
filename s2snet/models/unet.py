"""A residual U-Net (Ronneberger et al., arXiv 1505.04597): an autoencoder without index maps or other hard choices."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.models.normalised import Normalisation


class UNet(nn.Module):
    """A purifier: images [B, C, H, W] in [0, 1] -> images + a correction, not clipped.

    One level per entry of `widths`, each two 3x3 convolutions with GroupNorm and SiLU; 2x2 average pooling between
    levels on the way down, nearest-neighbour upsampling and the skip connection on the way up. Works on any side of at
    least 2 ** (len(widths) - 1). The defaults have 118,625 parameters.

    The last layer starts at zero, so an untrained U-Net is the identity, bit for bit. Reconstruction would then leave
    stage 1 nothing to learn: in training mode the encoder adds Gaussian noise of standard deviation `noise` to the
    images, which makes stage 1 train a denoiser (Vincent et al., ICML 2008). Stage 2 keeps the encoder in eval mode and
    sees no noise. Clean images (`val_loss`, `val_psnr`) are not what stage 1 optimises: the identity is perfect there.

    GroupNorm and not BatchNorm: the frozen encoder then has no running statistics that could be those of other weights
    or of noised images, and an image's result does not depend on its batch.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        noise: float = 0.1,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ):
        super().__init__()
        if not widths or min(widths) < 2:
            raise ValueError(f"widths={list(widths)}: expected at least one level, each of 2 channels or more")
        if noise < 0:
            raise ValueError(f"noise={noise}: expected a standard deviation of at least 0")
        self.encoder = Encoder(channels, widths, noise, mean, std)
        self.decoder = Decoder(channels, widths)
        self.minimum_side = 2 ** (len(widths) - 1)

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the images and the features of each level, finest first. Larger than the images many times over."""
        if min(images.shape[2:]) < self.minimum_side:
            height, width = images.shape[2:]
            raise ValueError(
                f"images of {height} x {width} are too small for {self.minimum_side.bit_length() - 1} poolings: the "
                f"shorter side must be at least {self.minimum_side}. Pad or resize the images, or take fewer widths"
            )
        return self.encoder(images)

    def decode(self, code: tuple[Tensor, ...]) -> Tensor:
        return self.decoder(code)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


class Encoder(nn.Module):
    """Images -> (images, features of level 1, 2, ...). In training mode the images are noised first."""

    def __init__(self, channels: int, widths: Sequence[int], noise: float, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.noise = noise
        self.normalisation = Normalisation(mean, std, channels)
        self.levels = nn.ModuleList(map(_level, (channels, *widths[:-1]), widths))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.training and self.noise:
            images = images + self.noise * torch.randn_like(images)
        x, features = self.normalisation(images), []
        for level in self.levels:
            x = level(functional.avg_pool2d(x, 2) if features else x)
            features.append(x)
        return (images, *features)


class Decoder(nn.Module):
    """(images, features of level 1, 2, ...) -> images + a correction, which starts at zero."""

    def __init__(self, channels: int, widths: Sequence[int]):
        super().__init__()
        self.levels = nn.ModuleList(
            _level(below + width, width) for width, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.conv_final = nn.Conv2d(widths[0], channels, 1)
        nn.init.zeros_(self.conv_final.weight)
        nn.init.zeros_(self.conv_final.bias)

    def forward(self, code: tuple[Tensor, ...]) -> Tensor:
        images, *skips, x = code
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            x = level(torch.cat([functional.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], dim=1))
        return images + self.conv_final(x)


def _level(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1),
        nn.GroupNorm(1, outside),
        nn.SiLU(),
        nn.Conv2d(outside, outside, 3, padding=1),
        nn.GroupNorm(1, outside),
        nn.SiLU(),
    )
