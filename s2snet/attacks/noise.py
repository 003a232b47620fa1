"""Draw random numbers that depend on the image only, not on batches, chunks, order or ranks."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Noise:
    """Random numbers per image, determined by (seed, image index, restart, draw).

    `indices` are the positions of the batch's images in the data set; the default numbers them from 0. Numbers are
    generated on the CPU, so all devices get the same values.
    """

    def __init__(self, seed: int = 0, indices: Sequence[int] | Tensor | None = None):
        self.seed = int(seed)
        self.indices = None if indices is None else [int(index) for index in indices]

    def uniform(self, like: Tensor, rows: Tensor, restart: int = 0, draw: int = 0) -> Tensor:
        """Return uniform numbers in [0, 1) with the shape of `like`, whose image k is row `rows[k]` of the batch."""
        return self._draw(torch.rand, like, rows, restart, draw)

    def normal(self, like: Tensor, rows: Tensor, restart: int = 0, draw: int = 0) -> Tensor:
        """Return standard normal numbers, otherwise as `uniform`."""
        return self._draw(torch.randn, like, rows, restart, draw)

    def _draw(self, sample: Callable, like: Tensor, rows: Tensor, restart: int, draw: int) -> Tensor:
        numbers = torch.empty(like.shape, dtype=like.dtype)
        for place, row in enumerate(rows.tolist()):
            index = row if self.indices is None else self.indices[row]
            key = f"{self.seed} {index} {restart} {draw}".encode()
            generator = torch.Generator().manual_seed(
                int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big", signed=True)
            )
            # always float32, so that a float64 run gets the same starts
            numbers[place] = sample(like.shape[1:], generator=generator, dtype=torch.float32)
        return numbers.to(like.device)
