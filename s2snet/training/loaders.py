"""Training batches whose order and augmentation follow from (seed, epoch, index) alone.

So the number of workers, the number of ranks (at an equal global batch) and an interruption don't change them.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from s2snet.data import Images, Splits


def derived_seed(*parts: int) -> int:
    """A 63-bit seed that follows from the parts; neighbours don't resemble each other."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def batches(count: int, batch_size: int, ranks: int, accumulate: int = 1) -> int:
    """How many batches of an epoch each rank gets; at least one, that of all images.

    Whole optimiser steps of `accumulate` batches; ValueError where there is not one.
    """
    batch = min(batch_size, count) * ranks
    if accumulate > 1 and accumulate * batch > count:
        raise ValueError(
            f"accumulate={accumulate}: an optimiser step would take {accumulate * batch} images, and there are "
            f"{count}; at most {max(1, count // batch)} here"
        )
    return max(1, count // (batch * accumulate)) * accumulate


class EpochSampler(Sampler):
    """Keys (epoch, place) in an order permuted by (seed, epoch), this rank's share of it.

    Lightning calls `set_epoch`. The epoch travels in the key, so worker processes augment by the right one. Ranks
    interleave, so that the union of their k-th batches is the k-th batch of a single process. What does not fill
    a global batch, times `accumulate`, is left for another epoch's order.
    """

    def __init__(self, count: int, batch_size: int, seed: int, accumulate: int = 1):
        self.count, self.batch_size, self.seed = count, min(batch_size, count), seed
        self.accumulate = accumulate
        self.epoch = self.skip_batches = 0
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if distributed else 0
        self.ranks = torch.distributed.get_world_size() if distributed else 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def batches(self) -> int:
        return batches(self.count, self.batch_size, self.ranks, self.accumulate)

    def __len__(self) -> int:
        return self.batches() * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=generator)[self.rank :: self.ranks].tolist()
        skip, self.skip_batches = self.skip_batches * self.batch_size, 0
        return iter([(self.epoch, place) for place in order[skip : len(self)]])


class Augmented(Dataset):
    """Training images, each moved by up to `shift` pixels either way (what comes in from outside is 0).

    Takes the keys of EpochSampler.
    """

    def __init__(self, images: Images, shift: int, seed: int):
        self.images, self.shift, self.seed = images, shift, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, place = key
        image, label, index = self.images[place]
        if self.shift:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch, index))
            down, right = torch.randint(0, 2 * self.shift + 1, (2,), generator=generator).tolist()
            height, width = image.shape[1:]
            padded = functional.pad(image, [self.shift] * 4)
            image = padded[:, down : down + height, right : right + width]
        return image, label, index


class ResumableLoader(DataLoader):
    """A DataLoader that says in a checkpoint how many batches of the epoch it has handed out, and goes on there."""

    handed_out = 0

    def __iter__(self) -> Iterator:
        self.handed_out = self.sampler.skip_batches
        for batch in super().__iter__():
            self.handed_out += 1
            yield batch

    def __len__(self) -> int:
        return self.sampler.batches()

    def state_dict(self) -> dict[str, int]:
        return {"handed_out": self.handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.skip_batches = state["handed_out"] % len(self)


class Batches(pl.LightningDataModule):
    """The loaders of one run. Lightning asks for them once the ranks stand, so the sampler knows its share."""

    def __init__(self, splits: Splits, recipe: dict[str, Any], seed: int, workers: int):
        super().__init__()
        self.splits, self.recipe, self.seed, self.workers = splits, recipe, seed, workers

    def steps(self, ranks: int) -> int:
        """Optimiser steps of an epoch. ValueError where the images do not fill one."""
        accumulate = self.recipe["accumulate"]
        return batches(len(self.splits.train), self.recipe["batch_size"], ranks, accumulate) // accumulate

    def train_dataloader(self) -> ResumableLoader:
        recipe = self.recipe
        sampler = EpochSampler(len(self.splits.train), recipe["batch_size"], self.seed, recipe["accumulate"])
        return ResumableLoader(
            Augmented(self.splits.train, self.recipe["shift"], self.seed),
            batch_size=sampler.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.splits.validation, batch_size=256)
