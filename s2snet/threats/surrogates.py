"""Fit surrogates: small networks that imitate a purifier on training images and are differentiated instead (BPDA)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

VERSION = 1  # raised when a fit's result changes
BATCH = 32
SHAKE = 0.1  # largest noise added to training images, so that the fit also learns how the purifier reacts to changes


class Learned(nn.Module):
    """Images -> images: the image plus four 3x3 convolutions on 2x2 blocks of pixels; receptive field 18 pixels."""

    def __init__(self, channels: int, width: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        even = functional.pad(images, (0, width % 2, 0, height % 2))
        return images + self.layers(even)[:, :, :height, :width]


class Affine(nn.Module):
    """Images -> images: one 9x9 convolution with bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 9, padding=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)

    def solve(self, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Set the weights of least squared error over (images, wanted), by the normal equations in float64."""
        square = product = 0
        for images, wanted in pairs:
            for image, want in zip(images, wanted, strict=True):  # an image at a time: patches are 81 times its size
                patches = functional.unfold(image[None], 9, padding=4)[0].double()
                rows = torch.cat([patches, torch.ones_like(patches[:1])])
                square, product = square + rows @ rows.T, product + rows @ want.flatten(1).double().T
        ridge = 1e-6 * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
        solution = torch.linalg.solve(square + ridge, product)
        with torch.no_grad():
            self.layer.weight.copy_(solution[:-1].T.reshape(self.layer.weight.shape))
            self.layer.bias.copy_(solution[-1])


SURROGATES: dict[str, Callable[[int], nn.Module]] = {"learned": Learned, "affine": Affine}


def fit(
    surrogate: nn.Module,
    purifier: nn.Module,
    batches: Callable[[Tensor], Tensor],
    count: int,
    steps: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> float:
    """Fit `surrogate` in place to `purifier` by mean squared error; return the error of the last batch.

    `batches(places)` returns the training images [b, C, H, W] at these places of `count`. Uniform noise of a random
    size up to SHAKE is added to each, since attacks also differentiate away from the data. Initial weights, order and
    noise depend on `seed` alone. A network takes `steps` batches of Adam with a cosine schedule; `Affine` is solved
    exactly on a tenth as many. Costs a forward of the purifier per image.
    """
    draw = torch.Generator().manual_seed(seed)

    def pair() -> tuple[Tensor, Tensor]:
        images = batches(torch.randint(count, (min(BATCH, count),), generator=draw))
        sizes = SHAKE * torch.rand((len(images), 1, 1, 1), generator=draw)
        shaken = (images + sizes * (2 * torch.rand(images.shape, generator=draw) - 1)).clamp(0, 1).to(device)
        with torch.no_grad():
            return shaken, purifier(shaken)

    with torch.no_grad():
        for parameter in surrogate.parameters():
            bound = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.0
            parameter.copy_((2 * torch.rand(parameter.shape, generator=draw) - 1) * bound)
    surrogate.to(device).train().requires_grad_(True)
    if isinstance(surrogate, Affine):
        surrogate.solve(pair() for _ in range(max(1, steps // 10)))
    else:
        optimiser = torch.optim.Adam(surrogate.parameters(), lr=5e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            shaken, wanted = pair()
            optimiser.zero_grad()
            functional.mse_loss(surrogate(shaken), wanted).backward()
            optimiser.step()
            schedule.step()
    surrogate.eval().requires_grad_(False)
    shaken, wanted = pair()
    return functional.mse_loss(surrogate(shaken), wanted).item()
