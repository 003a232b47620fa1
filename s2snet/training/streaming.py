"""Stream training batches from tar shards: infinite, resumable, in an order that follows from (seed, pass, shard).

Every reading process is a slot. Each pass permutes the shards by (seed, pass), and slot s of S reads order[s::S], shard
by shard, at its own pace. Its position (pass, place of the shard in its order, samples taken from that shard) is part
of every batch, so a checkpoint holds the position of the last batch *handed out*, whatever was read ahead. A resumed
run reads that shard again from its start, without decoding the samples that were handed out.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
import torch.distributed
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.transforms import v2

from s2snet.config.recipe import Recipe
from s2snet.data import Shards
from s2snet.data.shards import Sample
from s2snet.data.webdataset import RULES, Rejected
from s2snet.training.loaders import Batches, batches, derived_seed

Position = tuple[int, int, int]  # pass, place of the shard in the slot's order, samples taken from it
NAMED = ("broken_shard", "refused", "undecodable")  # rules whose samples are listed as damaged; others only counted


def shard_order(count: int, seed: int, passed: int, slot: int, slots: int) -> list[int]:
    """Return the shards, by number, that one slot reads in one pass."""
    generator = torch.Generator().manual_seed(derived_seed(seed, passed))
    return torch.randperm(count, generator=generator)[slot::slots].tolist()


def shuffled(samples: Iterable[Sample], size: int, seed: int) -> Iterator[Sample]:
    """Yield the samples in random order, each drawn from a buffer of `size`."""
    draw, buffer = random.Random(seed), []
    for sample in samples:
        if len(buffer) < size:
            buffer.append(sample)
            continue
        place = draw.randrange(size)
        yield buffer[place]
        buffer[place] = sample
    draw.shuffle(buffer)
    yield from buffer


class Slot:
    """The infinite batches of one slot, from a position on."""

    def __init__(
        self, shards: Shards, recipe: Recipe, seed: int, slot: int, slots: int, position: Position = (0, 0, 0)
    ):
        self.shards, self.batch_size, self.seed = shards, recipe.batch_size, seed
        self.change = _changes(shards, recipe)
        self.slot, self.slots, self.position = slot, slots, position

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor], Position, list[tuple[str, str]]] | ValueError]:
        """Yield (batch, the position after it, the samples rejected before it as (rule, reason)).

        A batch is (images float32 [B, C, H, W] in [0, 1], labels int64 [B], index int64 [B]); an index is the shard's
        number times 2**32 plus the sample's place in it. A pass without a single image ends the stream with a
        ValueError, which is yielded and not raised: a worker process would wrap it in a traceback.
        """
        images, labels, index, rejected = [], [], [], []
        # The last pass that is known to have an image, or was not read from its start.
        fruitful = self.position[0] - (self.position[1:] == (0, 0))
        for sample, number, position in self._walk():
            if position[0] > fruitful + 1:
                yield ValueError(
                    f"data.shards: no image in a whole pass over {len(self.shards.names)} shards; "
                    f"the last was rejected as {rejected[-1][0]} ({rejected[-1][1]})"
                )
                return
            try:
                picture = self.shards.picture(sample)
            except Rejected as reason:
                rejected.append((reason.rule, str(reason)))
                continue
            fruitful = position[0]
            with torch.random.fork_rng(devices=[]):  # the CPU's generator alone; v2 draws from no other
                torch.default_generator.manual_seed(derived_seed(self.seed, position[0], number, sample.place))
                images.append(self.change(picture).float() / 255)
            labels.append(self.shards.label(sample))
            index.append((number << 32) + sample.place)
            if len(images) == self.batch_size:
                yield (torch.stack(images), torch.tensor(labels), torch.tensor(index)), position, rejected
                images, labels, index, rejected = [], [], [], []

    def _walk(self) -> Iterator[tuple[Sample, int, Position]]:
        """Yield every sample with its shard's number and the position after it."""
        passed, first, taken = self.position
        while True:
            order = shard_order(len(self.shards.names), self.seed, passed, self.slot, self.slots)
            for place, number in list(enumerate(order))[first:]:
                seed = derived_seed(self.seed, passed, number)
                for count, sample in enumerate(shuffled(self.shards.samples(number), self.shards.shuffle, seed), 1):
                    if count > taken:
                        yield sample, number, (passed, place, count)
                taken = 0
            passed, first = passed + 1, 0


def _changes(shards: Shards, recipe: Recipe) -> v2.Transform:
    """Return the augmentation from a picture to uint8 [C, size, size]; a crop at random replaces `shift`."""
    if recipe.scale:
        steps = [v2.RandomResizedCrop(shards.size, scale=tuple(recipe.scale), antialias=True)]
    else:
        steps = [v2.Resize(shards.resize, antialias=True), v2.RandomCrop(shards.size)]
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose([*steps, v2.PILToTensor()])


class _Workers(IterableDataset):
    """A data set for a DataLoader whose worker k reads slot k of this list."""

    def __init__(self, slots: list[Slot]):
        self.slots = slots

    def __iter__(self) -> Iterator:
        worker = get_worker_info()
        return iter(self.slots[worker.id if worker else 0])


class StreamLoader:
    """The batches of this rank, from its slots in turn; an epoch is a number of batches. Lightning keeps its state.

    `rejected` counts by rule, up to the last batch handed out. Damaged samples are reported to `note`.
    """

    def __init__(self, shards: Shards, recipe: Recipe, seed: int, workers: int, note: Callable[[str], None] = str):
        self.shards, self.recipe, self.seed, self.workers, self.note = shards, recipe, seed, workers, note
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if distributed else 0
        self.ranks = torch.distributed.get_world_size() if distributed else 1
        self.handed_out = 0
        self.positions: list[Position] = [(0, 0, 0)] * max(1, workers)
        self.rejected: Counter[str] = Counter()
        self._iterator: Iterator | None = (
            None  # one for all epochs, so that what was read ahead is not lost between them
        )

    def __len__(self) -> int:
        return batches(len(self.shards), self.recipe.batch_size, self.ranks, self.recipe.accumulate)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if self._iterator is None:
            self._iterator = iter(self._started())
        for _ in range(len(self) - self.handed_out % len(self)):
            item = next(self._iterator)
            if isinstance(item, ValueError):
                raise item
            batch, position, rejected = item
            self.positions[self.handed_out % len(self.positions)] = position
            self.handed_out += 1
            self.rejected.update(rule for rule, _ in rejected)
            for rule, reason in rejected:
                if rule in NAMED:
                    self.note(reason)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return positions and counts of every rank: only the first one writes checkpoints. All ranks must call it."""
        own = {"positions": [list(position) for position in self.positions], "rejected": dict(self.rejected)}
        return {"handed_out": self.handed_out, "layout": self._layout(), "ranks": _gathered(own)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from there. ValueError, in one line, for another stream or another split of it."""
        if "layout" not in state:
            raise ValueError("ckpt_path: the checkpoint belongs to a run on other data than a stream of shards")
        for name, had in state["layout"].items():
            has = self._layout()[name]
            if has != had:
                values = f"; it had {had}, not {has}" if isinstance(had, int) else ""
                raise ValueError(f"ckpt_path: a stream of shards resumes only with the same {name}{values}")
        self.handed_out = state["handed_out"]
        own = state["ranks"][self.rank]
        self.positions = [tuple(position) for position in own["positions"]]
        self.rejected = Counter(own["rejected"])

    def _layout(self) -> dict[str, Any]:
        """Return what the positions refer to."""
        return {
            "number of ranks": self.ranks,
            "trainer.workers": len(self.positions),
            "batch_size": self.recipe.batch_size,
            "seed": self.seed,
            "data.epoch_images": len(self.shards),
            "data.shards and options of data": self._fingerprint,
        }

    @cached_property
    def _fingerprint(self) -> str:
        return self.shards.fingerprint()

    def _started(self) -> DataLoader:
        own, count = len(self.positions), len(self.shards.names)
        if count < own * self.ranks:
            raise ValueError(
                f"data.shards: {count} training shards for {own * self.ranks} reading processes "
                f"({self.ranks} x trainer.workers={own}); each needs at least one"
            )
        turn = self.handed_out % own  # a DataLoader starts with its first worker
        slots = [
            Slot(self.shards, self.recipe, self.seed, self.rank * own + k, own * self.ranks, self.positions[k])
            for k in (*range(turn, own), *range(turn))
        ]
        return DataLoader(_Workers(slots), batch_size=None, num_workers=self.workers, collate_fn=_unchanged)


class CountRejected(Callback):
    """A callback that logs `rejected_RULE` per rule: the samples of all ranks, up to the epoch's end."""

    def on_train_epoch_end(self, trainer, stage) -> None:
        loader: StreamLoader = trainer.datamodule.loader
        counts = {f"rejected_{rule}": float(loader.rejected[rule]) for rule in RULES}
        stage.log_dict(counts, on_epoch=True, sync_dist=True, reduce_fx="sum")


class StreamBatches(Batches):
    """The loaders of a run on shards."""

    callbacks = (CountRejected(),)

    def train_dataloader(self) -> StreamLoader:
        self.loader = StreamLoader(self.splits.train, self.recipe, self.seed, self.workers, self.note)
        return self.loader

    def facts(self) -> dict[str, Any]:
        """Return `rejected`: how many samples all ranks skipped, by rule, also before the run was resumed."""
        total = sum(map(Counter, _gathered(dict(self.loader.rejected))), Counter())
        return {"rejected": {rule: total[rule] for rule in RULES if total[rule]}}


def _gathered(own: Any) -> list[Any]:
    """Return the value of every rank, by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, own)
    return values


def _unchanged(item: Any) -> Any:
    """Return the item, which is already a batch."""
    return item
