"""Load training batches whose order and augmentation follow from (seed, epoch, index) alone.

The number of workers, the number of ranks (at an equal global batch) and an interruption do not change them.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from s2snet.config.recipe import Recipe
from s2snet.data import ImageFiles, Images, Splits, Streamed
from s2snet.data.image_files import first_readable

AT_ONCE = 2**20  # pixels of an evaluation batch: 256 images of 64 x 64, 20 of 224 x 224


def derived_seed(*parts: int) -> int:
    """Return a 63-bit seed that follows from the parts; neighbouring parts give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def batches(count: int, batch_size: int, ranks: int, accumulate: int = 1) -> int:
    """Return how many batches of an epoch each rank gets: at least one, with all images.

    These are whole optimiser steps of `accumulate` batches; ValueError if the images do not fill one.
    """
    batch = min(batch_size, count) * ranks
    if accumulate > 1 and accumulate * batch > count:
        raise ValueError(
            f"accumulate={accumulate}: an optimiser step needs {accumulate * batch} images and there are {count}; "
            f"at most {max(1, count // batch)} here"
        )
    return max(1, count // (batch * accumulate)) * accumulate


class EpochSampler(Sampler):
    """A sampler of this rank's keys (epoch, place), in an order permuted by (seed, epoch).

    Lightning calls `set_epoch`. The epoch is part of the key, so that worker processes augment by the right one. Ranks
    interleave, so that the union of their k-th batches is the k-th batch of a single process. Images that do not fill
    a global batch, times `accumulate`, are left out of this epoch.
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
    """Training images with the recipe's augmentation, each by a random state of (seed, epoch, index) alone.

    `scale` crops this share of the area (of the file's own pixels if the images are files) and resizes it. Without it,
    `shift` translates by up to that number of pixels in each direction and fills in 0. `flip` mirrors every other
    image. Takes the keys of EpochSampler. A damaged file is replaced by the next image and reported to `note`.
    """

    def __init__(self, images: Images | ImageFiles, recipe: Recipe, seed: int, note: Callable[[str], None] = str):
        self.images, self.seed, self.note = images, seed, note
        files = isinstance(images, ImageFiles)
        self.read = images.whole if files and recipe.scale else images.__getitem__
        self.change = _changes(recipe, (images.size, images.size) if files else tuple(images[0][0].shape[1:]))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, place = key
        image, label, index = first_readable(self.read, place, len(self.images), self.note)
        if self.change is not None:
            with torch.random.fork_rng(devices=[]):  # the CPU's generator alone; v2 draws from no other
                torch.default_generator.manual_seed(derived_seed(self.seed, epoch, index))
                image = self.change(image).clamp(0, 1)
        return image, label, index


def _changes(recipe: Recipe, size: tuple[int, int]) -> v2.Transform | None:
    steps = []
    if recipe.scale:
        steps.append(v2.RandomResizedCrop(size, scale=tuple(recipe.scale), antialias=True))
    elif recipe.shift:
        steps.append(v2.RandomCrop(size, padding=recipe.shift))
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)]) if steps else None


class ResumableLoader(DataLoader):
    """A DataLoader that resumes within an epoch: its state is how many batches it has handed out."""

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
    """The loaders of one run. Lightning asks for them after it has started the ranks, so the sampler knows its share.

    `callbacks` are those that a run on these loaders needs in addition to its own.
    """

    callbacks: tuple[pl.Callback, ...] = ()

    def __init__(self, splits: Splits, recipe: Recipe, seed: int, workers: int, note: Callable[[str], None] = str):
        super().__init__()
        self.splits, self.recipe, self.seed, self.workers, self.note = splits, recipe, seed, workers, note

    def steps(self, ranks: int) -> int:
        """Return the optimiser steps of an epoch. ValueError if the images do not fill one."""
        accumulate = self.recipe.accumulate
        return batches(len(self.splits.train), self.recipe.batch_size, ranks, accumulate) // accumulate

    def facts(self) -> dict[str, Any]:
        """Return what the weights' header adds to the splits' facts about the data. All ranks must call it."""
        return {}

    def train_dataloader(self) -> ResumableLoader:
        recipe = self.recipe
        sampler = EpochSampler(len(self.splits.train), recipe.batch_size, self.seed, recipe.accumulate)
        return ResumableLoader(
            Augmented(self.splits.train, self.recipe, self.seed, self.note),
            batch_size=sampler.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        return in_order(self.splits.validation, self.workers)


def in_order(images: Images | ImageFiles | Streamed, workers: int) -> DataLoader:
    """Return a loader for measuring: AT_ONCE pixels a batch, so that large images need no more memory than small ones.

    Worker processes are used only for images that are not in memory.
    """
    height, width = images[0][0].shape[1:] if not isinstance(images, ImageFiles) else (images.size, images.size)
    size = max(1, min(256, AT_ONCE // (height * width)))
    return DataLoader(images, batch_size=size, num_workers=0 if isinstance(images, Images) else workers)
