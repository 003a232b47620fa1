"""Craft and judge: for each chunk of images and each cell, attack, check the result, judge it and keep the rows.

Every decision is taken here and visible as a row, a status or a part of a key. No statistics, no printing.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from s2snet.attacks import Noise, Passes
from s2snet.attacks.balls import Ball
from s2snet.evaluation import timing
from s2snet.evaluation.cells import Cell, attack_of
from s2snet.evaluation.costs import counted, shares
from s2snet.evaluation.job import Job
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.plan import Plan
from s2snet.evaluation.progress import Progress
from s2snet.evaluation.ranks import Ranks
from s2snet.evaluation.referee import distances, quality, verdict
from s2snet.evaluation.schema import MEASURED_SCHEMA, NAMING, ROW_SCHEMA
from s2snet.evaluation.targets import TARGETS
from s2snet.models import Defended

JUDGED_AT_ONCE = 64  # images: more are slower, since a layer's output leaves the cache, and take more memory


@dataclass
class Chunk:
    """A fixed run of consecutive images: the unit that is crafted at once and that a crash costs."""

    number: int
    first: int  # place of its first image
    images: Tensor
    labels: Tensor
    index: Tensor


class Engine:
    """Runs the plan of a job over its images, one chunk of them in memory at a time."""

    def __init__(self, job: Job, plan: Plan, ledger: Ledger, ranks: Ranks | None = None):
        self.job, self.cells, self.costs, self.ledger = job, plan.cells, plan.costs, ledger
        self.ranks = ranks or Ranks()
        self.images, self.defences, self.judges = job.images, job.modules, job.judges
        self.chunks, self.sample = job.chunks, job.sample

    def run(self, progress: Progress | None = None) -> bool:
        """Craft and judge this rank's share of what the ledger lacks; return False if the user stopped it.

        A failure is recorded for its chunk of its cell; everything else continues.
        """
        progress = progress or Progress()
        owner = shares(self.cells, [len(places) for places in self.chunks], self.ranks.world, self.costs)
        for number in range(len(self.chunks)):
            mine = [cell for place, cell in enumerate(self.cells) if owner[number, place] == self.ranks.rank]
            chunk = purified = None
            for cell in mine:
                if progress.stopped:
                    return False
                missing = [name for name in cell.judges if not self._judged(cell, name, number)]
                if missing:
                    if chunk is None:
                        chunk = self._load(number)
                        purified = _PurifiedOnce(self.defences, chunk.images)
                    try:
                        self._craft_and_judge(cell, chunk, missing, purified)
                    except Exception as error:  # the failure of one attack is not the run's
                        self.ledger.keep_failure(cell.key, number, reason_of(error))
                progress.advance(cell, len(self.chunks[number]))
        return True

    def conclude(self) -> None:
        """Set each cell's status from the failures of all ranks."""
        failures = self.ledger.failures()
        for cell in self.cells:
            failed = failures.get(cell.key)
            if failed:
                number, reason = next(iter(failed.items()))
                several = f" (chunk {number}; {len(failed)} of {len(self.chunks)} chunks failed)"
                cell.status, cell.reason = "failed", reason + (several if len(self.chunks) > 1 else "")

    def _load(self, number: int) -> Chunk:
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
        """Return the kept rows of this chunk, or None if any are missing: a chunk may have grown."""
        rows = self.ledger.judged(cell.key, self.judges[name], number)
        expected = len(self.chunks[number])
        return rows.slice(0, expected) if rows is not None and len(rows) >= expected else None

    def _craft_and_judge(self, cell: Cell, chunk: Chunk, missing: list[str], purified: "_PurifiedOnce") -> None:
        crafted = self._craft(cell, chunk)
        if crafted is None:
            return
        for name in missing:
            rows = self._judge(cell, name, crafted, chunk, purified)
            self.ledger.keep_judged(cell.key, self.judges[name], chunk.number, rows)

    def _craft(self, cell: Cell, chunk: Chunk) -> dict[str, Tensor] | None:
        """Return the chunk's adversarial images, from the ledger or made now; None if the referee rejects them."""
        if cell.source is None:
            return self._given(cell, chunk)
        self.ledger.describe(cell.key, cell.preimage)
        kept = self.ledger.crafted(cell.key, chunk.number)
        if kept is not None and torch.equal(kept["image"][: len(chunk.index)], chunk.index):
            return {name: tensor[: len(chunk.index)] for name, tensor in kept.items()}
        if cell.universal and cell.shift is None:  # fitting it failed; fitted.prepare has recorded why
            self.ledger.keep_failure(cell.key, chunk.number, cell.reason)
            return None
        passes = Passes(len(chunk.index))
        started = time.perf_counter()
        with repeatable(cell.seed or 0, cell.key, chunk.number):  # so that a random source draws the same numbers
            targets = self._targets(cell, chunk)
            everything = torch.arange(len(chunk.index))
            adversarial = self._attack(cell, cell.fast, chunk, targets, everything, passes)
            ruling = verdict(chunk.images, adversarial, cell.norm, cell.budget)
            if ruling.ok and (cell.leave_early or cell.minimal):
                # The copy's last digits, or another batch, may have let an image go that does not fool the source.
                survivors = self._survivors(cell, chunk, adversarial, targets, passes)
                if len(survivors):
                    adversarial[survivors] = self._attack(
                        cell, cell.source, chunk, targets, survivors, passes, whole=True
                    )
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
        timing.append(
            self.job.output,
            {
                "crafted": cell.key,
                "chunk": chunk.number,
                "images": n,
                "seconds": round(seconds, 4),
                "images_per_second": round(n / max(seconds, 1e-9), 2),
                "forwards_per_image": round(forwards / n, 3),
                "backwards_per_image": round(backwards / n, 3),
                "rank": self.ranks.rank,
            },
        )
        return crafted

    def _given(self, cell: Cell, chunk: Chunk) -> dict[str, Tensor]:
        """Return images that no attack of ours makes: the clean ones, or those of a file."""
        none = torch.zeros(len(chunk.index), dtype=torch.int32)
        images = chunk.images
        if cell.foreign is not None:
            rounded = cell.preimage["eight_bits"]
            images, outside, excess = cell.foreign.within(
                chunk.images, chunk.index, chunk.first, cell.norm, cell.budget, rounded
            )
            if outside:
                timing.append(
                    self.job.output,
                    {"foreign": cell.attack, "chunk": chunk.number, "outside": outside, "excess": excess},
                )
            ruling = verdict(chunk.images, images, cell.norm, cell.budget)
            if not ruling.ok:
                raise ValueError(ruling.reason)
        target = torch.full_like(chunk.index, -1)
        return {"adversarial": images, "image": chunk.index, "target": target, "forwards": none, "backwards": none}

    def _keep(self, cell: Cell, chunk: Chunk, crafted: dict[str, Tensor]) -> None:
        if self.job.kept == "all":
            self.ledger.keep_crafted(cell.key, chunk.number, crafted)
        elif self.job.kept == "sample":
            shown = self.shown(chunk.number)
            if len(shown):
                few = {name: tensor[shown] for name, tensor in crafted.items()}
                self.ledger.keep_crafted(cell.key, chunk.number, few, sample=True)

    def shown(self, number: int) -> Tensor:
        """Return the places inside a chunk of the images that the report shows."""
        places = self.chunks[number]
        inside = self.sample[(self.sample >= places.start) & (self.sample < places.stop)]
        return torch.from_numpy(inside - places.start)

    def _targets(self, cell: Cell, chunk: Chunk) -> Tensor | None:
        aim = cell.options.get("targets")
        if aim is None:
            return None
        noise = Noise(cell.seed or 0, chunk.index)
        return TARGETS[aim](cell.source, chunk.images, chunk.labels, len(self.images.classes), noise)

    def _survivors(
        self, cell: Cell, chunk: Chunk, adversarial: Tensor, targets: Tensor | None, passes: Passes
    ) -> Tensor:
        """Return the places of images that the attack counted as fooling and that do not fool the source itself."""

        def withstands(module: nn.Module, rows: Tensor) -> Tensor:
            with torch.no_grad():
                predictions = module(adversarial[rows]).argmax(dim=1)
            return predictions == chunk.labels[rows] if targets is None else predictions != targets[rows]

        everything = torch.arange(len(adversarial), device=adversarial.device)
        rows = everything[withstands(cell.source, everything)]
        if not len(rows):
            return rows.cpu()
        if cell.minimal:  # a failed minimal attack returns the clean image
            claimed = (adversarial != chunk.images).flatten(1).any(dim=1)[rows]
        else:
            claimed = (passes.forwards < passes.forwards.max()).to(rows.device)[rows]
        with self.ranks.autocast(self.job.config.trainer.precision):
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
        """Run the cell's attack on some images of the chunk and add its passes to `passes`.

        `whole` takes all steps, in float32, whatever the cell allows.
        """
        if cell.universal:
            return Ball(chunk.images[rows], cell.budget, cell.norm).project(chunk.images[rows] + cell.shift)
        attack = attack_of(cell)
        options = {name: value for name, value in attack.options.items() if name != "targets"}
        if not cell.minimal:
            options["eps"] = cell.budget
        taken = Passes(len(rows))
        with contextlib.nullcontext() if whole else self.ranks.autocast(self.job.config.trainer.precision):
            adversarial = attack.function(
                module,
                chunk.images[rows],
                chunk.labels[rows],
                norm=cell.norm,
                noise=Noise(cell.seed or 0, chunk.index[rows]),
                targets=None if targets is None else targets[rows],
                leave_early=cell.leave_early and not whole,
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
        """Return the rows of a chunk before one judge: the untouched float32 module, without gradients."""
        defended = self.defences[name]
        adversarial = crafted["adversarial"].to(self.ranks.device)
        # A judge that answers at random draws the same for every cell, so that only the attack makes a difference.
        with torch.no_grad(), repeatable(cell.seed or 0, self.judges[name], chunk.number):
            parts = [defended.purifier(part) for part in adversarial.split(JUDGED_AT_ONCE)]
            logits = torch.cat([defended.classifier(part).float() for part in parts])
        cleaned = torch.cat(parts)
        if cell.clean:
            purified.remember(name, cell.seed or 0, cleaned)
        purified_clean = purified(name, cell.seed or 0, self.judges[name], chunk.number)
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
            "purified_signal": (cleaned - purified_clean).flatten(1).norm(dim=1),
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
        """Return some images of a chunk as a finished cell left them, crafted again if they are missing on disk.

        None if the job keeps no adversarial images.
        """
        if cell.source is not None and self.job.kept != "all":
            shown, kept = self.shown(number), self.ledger.crafted(cell.key, number, sample=True)
            if kept is not None and len(kept["image"]) == len(shown) and torch.equal(shown, places):
                expected = [int(self.images[self.chunks[number].start + int(place)][2]) for place in places]
                if kept["image"].tolist() == expected:
                    return kept["adversarial"]
            if self.job.kept == "none":
                return None
        return self._craft(cell, self._load(number))["adversarial"][places].cpu()

    def rows(self) -> Iterator[pa.Table]:
        """Yield all rows a chunk at a time, each under every threat that it serves, in SORT_ORDER."""
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
    """Return the reason that a failed cell records. An OSError, such as a full disk, is the run's: raised again."""
    if isinstance(error, OSError):
        raise error
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextlib.contextmanager
def repeatable(seed: int, judge: str, chunk: int) -> Iterator[None]:
    """Seed torch's generators from these three inside, and restore them afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    digest = hashlib.blake2b(f"{seed} {judge} {chunk}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices):
        # Not torch.manual_seed: for each kind of device that is not in use, it keeps a call with its formatted stack.
        for generator in [torch.default_generator, *(torch.cuda.default_generators[device] for device in devices)]:
            generator.manual_seed(int.from_bytes(digest, "big") >> 1)
        yield


class _PurifiedOnce:
    """The clean images of a chunk after each defence's purifier, computed at the first request."""

    def __init__(self, defences: dict[str, Defended], images: Tensor):
        self._defences, self._images, self._known = defences, images, {}

    def remember(self, name: str, seed: int, purified: Tensor) -> None:
        """Save the pass if the clean images were just judged."""
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
