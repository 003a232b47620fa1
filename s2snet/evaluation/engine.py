"""The engine: for each chunk of images and each cell, craft, let the referee look, judge before every defence, keep.

Every decision is taken here and shows as a row, a status or a part of a key. No statistics, no printing.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from s2snet.attacks import Noise, Passes
from s2snet.attacks.balls import Ball
from s2snet.evaluation import cells as planning
from s2snet.evaluation.cells import Cell
from s2snet.evaluation.costs import counted
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.ranks import Ranks
from s2snet.evaluation.referee import distances, quality, verdict
from s2snet.evaluation.schema import MEASURED_SCHEMA, NAMING, ROW_SCHEMA
from s2snet.evaluation.targets import TARGETS
from s2snet.models import Defended

KEEP = ("all", "sample", "none")
JUDGED_AT_ONCE = 64  # images: more are slower, since a layer's output leaves the cache, and take more memory


@dataclass
class Chunk:
    """A fixed run of consecutive images: the unit that is crafted at once and that a crash costs."""

    number: int
    first: int  # place of its first image
    images: Tensor
    labels: Tensor
    index: Tensor


def chunks(size: int, count: int) -> list[range]:
    """The places of each chunk of the first `count` images."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def deterministic(module: nn.Module, images: Tensor) -> bool:
    """Whether two passes over the same images give the same logits, bit for bit, NaN for NaN. Two forwards."""
    with torch.no_grad():
        first, second = module(images), module(images)
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


@dataclass
class Engine:
    """Runs a plan over images. `tick(cell, chunk)` is called after each piece of work, `note` writes a timing.

    `images` is any sequence of (image [C, H, W] in [0, 1], label, index in ascending order) with `classes`;
    one chunk of it is in memory at a time.
    """

    cells: list[Cell]
    defences: dict[str, Defended]
    judges: dict[str, str]  # fingerprint of each defence
    images: Any
    ledger: Ledger
    chunk_size: int
    count: int
    tick: Callable[[Cell, int], None]
    note: Callable[[dict[str, Any]], None]
    ranks: Ranks = field(default_factory=Ranks)
    precision: str = "32-true"
    keep: str = "all"
    sample: np.ndarray = field(default_factory=lambda: np.empty(0, int))  # places whose images the report shows
    stop: Callable[[], bool] = bool  # asked before each piece of work

    def run(self, owner: dict[tuple[int, int], int]) -> bool:
        """Crafts and judges this rank's pieces that the ledger does not hold; False where it was stopped.

        What fails in a chunk is noted there; the rest of the cell goes on.
        """
        for number in range(len(self.chunks)):
            mine = [place for place in range(len(self.cells)) if owner[number, place] == self.ranks.rank]
            chunk = purified = None
            for cell in (self.cells[place] for place in mine):
                if self.stop():
                    return False
                missing = [name for name in cell.judges if not self._judged(cell, name, number)]
                if missing:
                    if chunk is None:
                        chunk = self._chunk(number)
                        purified = _PurifiedOnce(self.defences, chunk.images)
                    try:
                        self._one(cell, chunk, missing, purified)
                    except Exception as error:  # one attack's failure is that piece's, not the run's
                        self.ledger.keep_failure(cell.key, number, reason_of(error))
                self.tick(cell, number)
        return True

    @property
    def chunks(self) -> list[range]:
        return chunks(self.chunk_size, self.count)

    def conclude(self) -> None:
        """Gives each cell the status that its pieces of all ranks have."""
        failures = self.ledger.failures()
        for cell in self.cells:
            failed = failures.get(cell.key)
            if failed:
                number, reason = next(iter(failed.items()))
                several = f" (chunk {number}; {len(failed)} of {len(self.chunks)} chunks failed)"
                cell.status, cell.reason = "failed", reason + (several if len(self.chunks) > 1 else "")

    def _chunk(self, number: int) -> Chunk:
        places = self.chunks[number]
        batch = [self.images[place] for place in places]
        return Chunk(
            number,
            places.start,
            torch.stack([item[0] for item in batch]).to(self.ranks.device),
            torch.tensor([int(item[1]) for item in batch], device=self.ranks.device),
            torch.tensor([int(item[2]) for item in batch]),
        )

    def _judged(self, cell: Cell, name: str, number: int) -> pa.Table | None:
        """The kept rows of this chunk, or None where they are not there, or not all: a chunk may have grown."""
        rows = self.ledger.judged(cell.key, self.judges[name], number)
        wanted = len(self.chunks[number])
        return rows.slice(0, wanted) if rows is not None and len(rows) >= wanted else None

    def _one(self, cell: Cell, chunk: Chunk, missing: list[str], purified: "_PurifiedOnce") -> None:
        crafted = self._crafted(cell, chunk)
        if crafted is None:
            return
        for name in missing:
            rows = self._judge(cell, name, crafted, chunk, purified)
            self.ledger.keep_judged(cell.key, self.judges[name], chunk.number, rows)

    def _crafted(self, cell: Cell, chunk: Chunk) -> dict[str, Tensor] | None:
        """The chunk's adversarial images, from the ledger or made now; None where the referee refuses them."""
        if cell.source is None:
            return self._given(cell, chunk)
        self.ledger.describe(cell.key, cell.preimage)
        kept = self.ledger.crafted(cell.key, chunk.number)
        if kept is not None and torch.equal(kept["image"][: len(chunk.index)], chunk.index):
            return {name: tensor[: len(chunk.index)] for name, tensor in kept.items()}
        if cell.universal and cell.shift is None:  # it could not be made, as fitted.prepare has noted
            self.ledger.keep_failure(cell.key, chunk.number, cell.reason)
            return None
        passes = Passes(len(chunk.index))
        started = time.perf_counter()
        with repeatable(cell.seed or 0, cell.key, chunk.number):  # a source that answers at random answers alike
            targets = self._targets(cell, chunk)
            everything = torch.arange(len(chunk.index))
            adversarial = self._attack(cell, cell.fast, chunk, targets, everything, passes)
            ruling = verdict(chunk.images, adversarial, cell.norm, cell.budget)
            if ruling.ok and (cell.preimage["leave_early"] or cell.preimage["budget"] is None):
                # The copy's last digits, or another batch, may have let an image go that the source still gets right.
                stands = self._stands(cell, chunk, adversarial, targets, passes)
                if len(stands):
                    adversarial[stands] = self._attack(cell, cell.source, chunk, targets, stands, passes, whole=True)
                    ruling = verdict(chunk.images, adversarial, cell.norm, cell.budget)
        seconds = time.perf_counter() - started
        if not ruling.ok:
            self.ledger.keep_failure(cell.key, chunk.number, ruling.reason)
            return None
        crafted = {
            "adversarial": adversarial.cpu(),
            "image": chunk.index,
            "target": torch.full_like(chunk.index, -1) if targets is None else targets.cpu(),
            "forwards": passes.forwards,
            "backwards": passes.backwards,
        }
        self._keep(cell, chunk, crafted)
        n, forwards, backwards = len(chunk.index), int(passes.forwards.sum()), int(passes.backwards.sum())
        self.note(
            {
                "crafted": cell.key,
                "chunk": chunk.number,
                "images": n,
                "seconds": round(seconds, 4),
                "images_per_second": round(n / max(seconds, 1e-9), 2),
                "forwards_per_image": round(forwards / n, 3),
                "backwards_per_image": round(backwards / n, 3),
                "rank": self.ranks.rank,
            }
        )
        return crafted

    def _given(self, cell: Cell, chunk: Chunk) -> dict[str, Tensor]:
        """Images that no attack of ours makes: the clean ones, or those of a file."""
        none = torch.zeros(len(chunk.index), dtype=torch.int32)
        images = chunk.images
        if cell.foreign is not None:
            rounded = cell.preimage["eight_bits"]
            images, outside, excess = cell.foreign.within(
                chunk.images, chunk.index, chunk.first, cell.norm, cell.budget, rounded
            )
            if outside:
                self.note({"foreign": cell.attack, "chunk": chunk.number, "outside": outside, "excess": excess})
            ruling = verdict(chunk.images, images, cell.norm, cell.budget)
            if not ruling.ok:
                raise ValueError(ruling.reason)
        target = torch.full_like(chunk.index, -1)
        return {"adversarial": images, "image": chunk.index, "target": target, "forwards": none, "backwards": none}

    def _keep(self, cell: Cell, chunk: Chunk, crafted: dict[str, Tensor]) -> None:
        if self.keep == "all":
            self.ledger.keep_crafted(cell.key, chunk.number, crafted)
        elif self.keep == "sample":
            shown = self.shown(chunk.number)
            if len(shown):
                few = {name: tensor[shown] for name, tensor in crafted.items()}
                self.ledger.keep_crafted(cell.key, chunk.number, few, sample=True)

    def shown(self, number: int) -> Tensor:
        """The places inside a chunk of the images that the report shows."""
        places = self.chunks[number]
        inside = self.sample[(self.sample >= places.start) & (self.sample < places.stop)]
        return torch.from_numpy(inside - places.start)

    def _targets(self, cell: Cell, chunk: Chunk) -> Tensor | None:
        aim = cell.preimage["options"].get("targets")
        if aim is None:
            return None
        noise = Noise(cell.seed or 0, chunk.index)
        return TARGETS[aim](cell.source, chunk.images, chunk.labels, len(self.images.classes), noise)

    def _stands(self, cell: Cell, chunk: Chunk, adversarial: Tensor, targets: Tensor | None, passes: Passes) -> Tensor:
        """The places of images that the attack took for fooling and that the source itself withstands."""

        def withstands(module: nn.Module, rows: Tensor) -> Tensor:
            with torch.no_grad():
                answers = module(adversarial[rows]).argmax(dim=1)
            return answers == chunk.labels[rows] if targets is None else answers != targets[rows]

        everything = torch.arange(len(adversarial), device=adversarial.device)
        rows = everything[withstands(cell.source, everything)]
        if not len(rows):
            return rows.cpu()
        if cell.preimage["budget"] is None:  # a failed minimal attack gave the clean image back
            claimed = (adversarial != chunk.images).flatten(1).any(dim=1)[rows]
        else:
            claimed = (passes.forwards < passes.forwards.max()).to(rows.device)[rows]
        with self.ranks.autocast(self.precision):
            claimed |= ~withstands(cell.fast, rows)
        return rows[claimed].cpu()

    def _attack(
        self,
        cell: Cell,
        module: nn.Module,
        chunk: Chunk,
        targets: Tensor | None,
        rows: Tensor,
        passes: Passes,
        whole: bool = False,
    ) -> Tensor:
        """The attack of the cell on some images of the chunk; adds what it took to `passes`.

        `whole` takes all steps, in float32, whatever the cell allows.
        """
        if cell.universal:
            return Ball(chunk.images[rows], cell.budget, cell.norm).project(chunk.images[rows] + cell.shift)
        function, options = planning.attack_of(cell)
        options = {name: value for name, value in options.items() if name != "targets"}
        if cell.preimage["budget"] is not None:
            options["eps"] = cell.budget
        taken = Passes(len(rows))
        with contextlib.nullcontext() if whole else self.ranks.autocast(self.precision):
            adversarial = function(
                module,
                chunk.images[rows],
                chunk.labels[rows],
                norm=cell.norm,
                noise=Noise(cell.seed or 0, chunk.index[rows]),
                targets=None if targets is None else targets[rows],
                leave_early=cell.preimage["leave_early"] and not whole,
                passes=taken,
                **options,
            )
        forwards, backwards = counted(taken.forwards, taken.backwards, getattr(module, "draws_per_backward", None))
        passes.forwards[rows] += forwards
        passes.backwards[rows] += backwards
        return adversarial

    def _judge(
        self, cell: Cell, name: str, crafted: dict[str, Tensor], chunk: Chunk, purified: "_PurifiedOnce"
    ) -> pa.Table:
        """The rows of a chunk before one judge: the untouched float32 module, without gradients."""
        defended = self.defences[name]
        adversarial = crafted["adversarial"].to(self.ranks.device)
        # A judge that answers at random draws the same for every cell: what differs is the attack's doing.
        with torch.no_grad(), repeatable(cell.seed or 0, self.judges[name], chunk.number):
            parts = [defended.purifier(part) for part in adversarial.split(JUDGED_AT_ONCE)]
            logits = torch.cat([defended.classifier(part).float() for part in parts])
        cleaned = torch.cat(parts)
        if cell.clean:
            purified.know(name, cell.seed or 0, cleaned)
        finite = logits.isfinite().all(dim=1)
        prediction = torch.where(finite, logits.argmax(dim=1), -1)
        best_other = logits.scatter(1, chunk.labels[:, None], -torch.inf).amax(dim=1)
        margin = logits.gather(1, chunk.labels[:, None]).squeeze(1) - best_other
        columns = {
            "image": chunk.index,
            "label": chunk.labels,
            "prediction": prediction,
            "correct": prediction == chunk.labels,
            "confidence": torch.where(finite, logits.softmax(dim=1).amax(dim=1), torch.nan),
            "margin": margin,
            **distances(chunk.images, adversarial, *self._statistics()),
            "purified_pixel": (cleaned - adversarial).flatten(1).norm(dim=1),
            "purified_signal": (cleaned - purified(name, cell.seed or 0, self.judges[name], chunk.number))
            .flatten(1)
            .norm(dim=1),
            "forwards": crafted["forwards"],
            "backwards": crafted["backwards"],
            "target": crafted["target"],
        }
        arrays = {key: pa.array(value.cpu().numpy()) for key, value in columns.items()}
        arrays |= dict.fromkeys(("psnr", "ssim"), pa.nulls(len(chunk.index)))
        if cell.clean and defended.has_purifier:
            arrays |= {key: pa.array(value) for key, value in quality(cleaned, chunk.images).items()}
        arrays["l2_standardised"] = arrays.get("l2_standardised", pa.nulls(len(chunk.index)))
        return pa.table({field.name: arrays[field.name] for field in MEASURED_SCHEMA}).cast(MEASURED_SCHEMA)

    def _statistics(self) -> tuple:
        return getattr(self.images, "mean", None), getattr(self.images, "std", None)

    def adversarial(self, cell: Cell, number: int, places: Tensor) -> Tensor | None:
        """Some images of a chunk as a finished cell left them; crafted again where they should be there and are not."""
        if cell.source is not None and self.keep != "all":
            shown, kept = self.shown(number), self.ledger.crafted(cell.key, number, sample=True)
            if kept is not None and len(kept["image"]) == len(shown) and torch.equal(shown, places):
                wanted = [int(self.images[self.chunks[number].start + int(place)][2]) for place in places]
                if kept["image"].tolist() == wanted:
                    return kept["adversarial"]
            if self.keep == "none":
                return None
        return self._crafted(cell, self._chunk(number))["adversarial"][places].cpu()

    def rows(self) -> Iterator[pa.Table]:
        """All rows there are, each under every threat that it serves, in SORT_ORDER, a chunk at a time."""
        named = [
            (_naming(cell, threat, source, name, self.judges[name]), cell)
            for cell in self.cells
            for threat, source, judges in cell.views
            for name in judges
        ]
        for naming, cell in sorted(named, key=lambda item: _order(item[0])):
            for number in range(len(self.chunks)):
                rows = self._judged(cell, naming["defence"], number)
                if rows is not None:
                    columns = [pa.array([naming[key]] * len(rows), type=kind) for key, kind in NAMING]
                    yield pa.table(columns + rows.columns, schema=ROW_SCHEMA)


def reason_of(error: Exception) -> str:
    """What a failed cell says of its attack's error. An OSError, such as a full disk, is the run's: raised again."""
    if isinstance(error, OSError):
        raise error
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextlib.contextmanager
def repeatable(seed: int, judge: str, chunk: int) -> Iterator[None]:
    """Torch's generators start from these three inside, and are as before afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    digest = hashlib.blake2b(f"{seed} {judge} {chunk}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices):
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)
        yield


class _PurifiedOnce:
    """The clean images of a chunk after each defence's purifier, computed when first asked for."""

    def __init__(self, defences: dict[str, Defended], images: Tensor):
        self._defences, self._images, self._known = defences, images, {}

    def know(self, name: str, seed: int, purified: Tensor) -> None:
        """Saves the pass where the clean images were just judged."""
        self._known.setdefault((name, seed), purified)

    def __call__(self, name: str, seed: int, judge: str, chunk: int) -> Tensor:
        if (name, seed) not in self._known:
            with torch.no_grad(), repeatable(seed, judge, chunk):
                parts = [self._defences[name].purifier(part) for part in self._images.split(JUDGED_AT_ONCE)]
            self._known[name, seed] = torch.cat(parts)
        return self._known[name, seed]


def _naming(cell: Cell, threat: str, source: str, name: str, judge: str) -> dict[str, Any]:
    return {
        "crafted": "" if cell.clean else cell.key,
        "judge": judge,
        "defence": name,
        "threat": threat,
        "source": source,
        "route": cell.route,
        "attack": cell.attack,
        "norm": cell.norm,
        "budget": cell.budget,
        "seed": -1 if cell.seed is None else cell.seed,
    }


def _order(naming: dict[str, Any]) -> tuple:
    names = ("defence", "threat", "source", "route", "attack", "norm", "budget", "seed", "crafted")
    return tuple(naming[name] for name in names)
