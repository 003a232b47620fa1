"""The engine: for each chunk of images and each cell, craft, let the referee look, judge before every defence, keep.

Every decision is taken here and shows as a row, a status or a part of a key. No statistics, no printing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from s2snet.attacks import Noise, Passes
from s2snet.data import Images
from s2snet.evaluation import cells as planning
from s2snet.evaluation.cells import Cell
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.referee import distances, verdict
from s2snet.evaluation.schema import MEASURED_SCHEMA, NAMING, ROW_SCHEMA, SORT_ORDER
from s2snet.models import Defended


@dataclass
class Chunk:
    """A fixed run of consecutive images: the unit that is crafted at once and that a crash costs."""

    number: int
    images: Tensor
    labels: Tensor
    index: Tensor


def chunks(images: Images, size: int, count: int) -> list[range]:
    """The places of each chunk of the first `count` images."""
    count = min(count, len(images))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def deterministic(module: nn.Module, images: Tensor) -> bool:
    """Whether two passes over the same images give the same logits, bit for bit. Two forwards."""
    with torch.no_grad():
        return torch.equal(module(images), module(images))


@dataclass
class Engine:
    """Runs a plan over images. `tick(cell, chunk)` is called after each piece of work, `note` writes a timing."""

    cells: list[Cell]
    defences: dict[str, Defended]
    judges: dict[str, str]  # fingerprint of each defence
    images: Images
    ledger: Ledger
    chunk_size: int
    count: int
    seed: int
    tick: Callable[[Cell, int], None]
    note: Callable[[dict[str, Any]], None]
    device: torch.device

    def run(self) -> None:
        """Crafts and judges what the ledger does not hold. A cell that fails is marked and goes no further."""
        for number in range(len(chunks(self.images, self.chunk_size, self.count))):
            chunk = self._chunk(number)
            purified = _PurifiedOnce(self.defences, chunk.images)
            for cell in self.cells:
                if cell.status == "done":
                    try:
                        self._one(cell, chunk, purified)
                    except Exception as error:  # one attack's failure is that cell's, not the run's
                        if isinstance(error, OSError):  # a full disk is
                            raise
                        cell.fail(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
                self.tick(cell, number)

    def _chunk(self, number: int) -> Chunk:
        batch = [self.images[place] for place in chunks(self.images, self.chunk_size, self.count)[number]]
        return Chunk(
            number,
            torch.stack([image for image, _, _ in batch]).to(self.device),
            torch.tensor([label for _, label, _ in batch], device=self.device),
            torch.tensor([index for _, _, index in batch]),
        )

    def _one(self, cell: Cell, chunk: Chunk, purified: "_PurifiedOnce") -> None:
        missing = [
            name
            for name in cell.judges
            if not _holds(self.ledger.judged(cell.key, self.judges[name], chunk.number), chunk)
        ]
        if not missing:
            return
        crafted = self._crafted(cell, chunk)
        if crafted is None:
            return
        for name in missing:
            rows = self._judge(name, crafted, chunk, purified)
            self.ledger.keep_judged(cell.key, self.judges[name], chunk.number, rows)

    def _crafted(self, cell: Cell, chunk: Chunk) -> dict[str, Tensor] | None:
        """The chunk's adversarial images, from the ledger or made now; None where the referee refuses them."""
        if cell.source is None:
            none = torch.zeros(len(chunk.index), dtype=torch.int32)
            return {"adversarial": chunk.images, "image": chunk.index, "forwards": none, "backwards": none}
        self.ledger.describe(cell.key, cell.preimage)
        kept = self.ledger.crafted(cell.key, chunk.number)
        if kept is not None and torch.equal(kept["image"][: len(chunk.index)], chunk.index):
            return {name: tensor[: len(chunk.index)] for name, tensor in kept.items()}
        passes = Passes(len(chunk.index))
        leave_early = cell.preimage["leave_early"]
        everything = torch.arange(len(chunk.index))
        started = time.perf_counter()
        adversarial = self._attack(cell, cell.fast, chunk, everything, leave_early, passes)
        ruling = verdict(chunk.images, adversarial, cell.preimage["norm"], cell.preimage["budget"])
        if leave_early and ruling.ok:
            # The copy's last digits, or another batch, may have let an image go that the judge still gets right.
            stands = torch.nonzero(
                _right(cell.source, adversarial, chunk.labels).cpu() & (passes.forwards < passes.forwards.max())
            ).squeeze(1)
            if len(stands):
                adversarial[stands] = self._attack(cell, cell.source, chunk, stands, False, passes)
                ruling = verdict(chunk.images, adversarial, cell.preimage["norm"], cell.preimage["budget"])
        seconds = time.perf_counter() - started
        if not ruling.ok:
            cell.fail(ruling.reason)
            return None
        crafted = {
            "adversarial": adversarial.cpu(),
            "image": chunk.index,
            "forwards": passes.forwards,
            "backwards": passes.backwards,
        }
        self.ledger.keep_crafted(cell.key, chunk.number, crafted)
        self.note(
            {
                "crafted": cell.key,
                "chunk": chunk.number,
                "images": len(chunk.index),
                "seconds": round(seconds, 4),
                "forwards": int(passes.forwards.sum()),
                "backwards": int(passes.backwards.sum()),
            }
        )
        return crafted

    def _attack(
        self, cell: Cell, module: nn.Module, chunk: Chunk, rows: Tensor, leave_early: bool, passes: Passes
    ) -> Tensor:
        """The attack of the cell on some images of the chunk; adds what it took to `passes`."""
        function, options = planning.options(cell.attack, {"name": cell.preimage["attack"], **cell.preimage["options"]})
        taken = Passes(len(rows))
        adversarial = function(
            module,
            chunk.images[rows],
            chunk.labels[rows],
            eps=cell.preimage["budget"],
            norm=cell.preimage["norm"],
            noise=Noise(self.seed, chunk.index[rows]),
            leave_early=leave_early,
            passes=taken,
            **options,
        )
        passes.forwards[rows] += taken.forwards
        passes.backwards[rows] += taken.backwards
        return adversarial

    def _judge(self, name: str, crafted: dict[str, Tensor], chunk: Chunk, purified: "_PurifiedOnce") -> pa.Table:
        """The rows of a chunk before one judge: the untouched float32 module, without gradients."""
        defended = self.defences[name]
        adversarial = crafted["adversarial"].to(self.device)
        with torch.no_grad():
            cleaned = defended.purifier(adversarial)
            logits = defended.classifier(cleaned).float()
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
            **distances(chunk.images, adversarial),
            "purified_pixel": (cleaned - adversarial).flatten(1).norm(dim=1),
            "purified_signal": (cleaned - purified(name)).flatten(1).norm(dim=1),
            "forwards": crafted["forwards"],
            "backwards": crafted["backwards"],
        }
        return pa.table({key: value.cpu().numpy() for key, value in columns.items()}).cast(MEASURED_SCHEMA)

    def adversarial(self, cell: Cell, number: int) -> Tensor:
        """The images of a chunk as a finished cell left them; crafted again where the ledger lost them."""
        return self._crafted(cell, self._chunk(number))["adversarial"]

    def rows(self) -> pa.Table:
        """All rows of the finished cells, each under every threat that it serves, in SORT_ORDER."""
        parts = []
        count = len(chunks(self.images, self.chunk_size, self.count))
        for cell in self.cells:
            if cell.status != "done":
                continue
            for threat, source_name, judges in cell.views:
                for name in judges:
                    for number in range(count):
                        rows = self.ledger.judged(cell.key, self.judges[name], number)
                        rows = rows.slice(0, min(self.chunk_size, self.count - number * self.chunk_size))
                        parts.append(_named(rows, cell, threat, source_name, name, self.judges[name]))
        return pa.concat_tables(parts).sort_by([(column, "ascending") for column in SORT_ORDER])


def _right(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return module(images).argmax(dim=1) == labels


class _PurifiedOnce:
    """The clean images of a chunk after each defence's purifier, computed when first asked for."""

    def __init__(self, defences: dict[str, Defended], images: Tensor):
        self._defences, self._images, self._known = defences, images, {}

    def __call__(self, name: str) -> Tensor:
        if name not in self._known:
            with torch.no_grad():
                self._known[name] = self._defences[name].purifier(self._images)
        return self._known[name]


def _holds(rows: pa.Table | None, chunk: Chunk) -> bool:
    """Whether kept rows cover the chunk: the same images in the same order, perhaps more behind them."""
    return rows is not None and rows["image"].to_pylist()[: len(chunk.index)] == chunk.index.tolist()


def _named(rows: pa.Table, cell: Cell, threat: str, source_name: str, name: str, judge: str) -> pa.Table:
    clean = cell.source is None
    naming = {
        "crafted": "" if clean else cell.key,
        "judge": judge,
        "defence": name,
        "threat": threat,
        "source": source_name,
        "route": "" if clean else cell.preimage["route"],
        "attack": cell.attack,
        "norm": "" if clean else cell.preimage["norm"],
        "budget": 0.0 if clean else cell.preimage["budget"],
    }
    columns = [pa.array([naming[key]] * len(rows), type=kind) for key, kind in NAMING]
    return pa.table(columns + rows.columns, schema=ROW_SCHEMA)
