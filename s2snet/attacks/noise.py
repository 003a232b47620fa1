"""Random numbers that travel with the image, so that batches, chunks, order and ranks don't change them."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Noise:
    """Draws for each image from (seed, image index, restart, draw) alone.

    `indices` are the images' places in the data set; without them a batch is numbered from 0. Numbers are
    made on the CPU and moved, so every device gets the same.
    """

    def __init__(self, seed: int = 0, indices: Sequence[int] | Tensor | None = None):
        self.seed = int(seed)
        self.indices = None if indices is None else [int(index) for index in indices]

    def uniform(self, like: Tensor, rows: Tensor, restart: int = 0, draw: int = 0) -> Tensor:
        """Uniform on [0, 1), of the shape of `like`, whose image k is row `rows[k]` of the whole batch."""
        return self._draw(torch.rand, like, rows, restart, draw)

    def normal(self, like: Tensor, rows: Tensor, restart: int = 0, draw: int = 0) -> Tensor:
        """Standard normal, otherwise as `uniform`."""
        return self._draw(torch.randn, like, rows, restart, draw)

    def _draw(self, sample: Callable, like: Tensor, rows: Tensor, restart: int, draw: int) -> Tensor:
        numbers = torch.empty(like.shape, dtype=like.dtype)
        for place, row in enumerate(rows.tolist()):
            index = row if self.indices is None else self.indices[row]
            key = f"{self.seed} {index} {restart} {draw}".encode()
            generator = torch.Generator().manual_seed(
                int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big", signed=True)
            )
            # float32 whatever the images' type, so that a float64 run sees the same start
            numbers[place] = sample(like.shape[1:], generator=generator, dtype=torch.float32)
        return numbers.to(like.device)
