"""Surrogates of purifiers: fitted once on training images, kept in the ledger, loaded by every rank."""

import copy
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from s2snet.data.files import readable
from s2snet.evaluation.cells import Cell
from s2snet.evaluation.engine import repeatable
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.ranks import Ranks
from s2snet.threats import fit
from s2snet.threats.surrogates import VERSION


def training_facts(images: Any) -> dict[str, Any]:
    """What a surrogate depends on besides its purifier: it becomes part of the key of each cell that uses one."""
    return {"train": images.fingerprint(), "version": VERSION}


def name_of(cell: Cell) -> str:
    """The key of a cell's surrogate: what it is, of which purifier, fitted on what, how long."""
    preimage = cell.preimage["fit"] | {"steps": cell.preimage["route"]["fit_steps"]}
    return hashlib.sha256(json.dumps(preimage, sort_keys=True).encode()).hexdigest()[:32]


def seconds(cell: Cell, train: Any, device: torch.device, steps: int = 3) -> float:
    """About what fitting the cell's surrogate takes, from a few steps of a copy after a warm-up."""
    surrogate, purifier = copy.deepcopy(cell.surrogate), cell.source.defended.purifier
    fit(surrogate, purifier, batches(train), len(train), 1, device=device)
    started = time.perf_counter()
    fit(surrogate, purifier, batches(train), len(train), steps, device=device)
    return (time.perf_counter() - started) / steps * cell.preimage["route"]["fit_steps"]


def prepare(cells: list[Cell], train: Any, ledger: Ledger, ranks: Ranks, say: Callable[[str], None]) -> None:
    """Fills the surrogate of every cell that has one: from the ledger, or fitted by the first rank.

    A purifier's surrogate is shared by all cells whose preimage says the same of it.
    """
    made: dict[str, dict[str, Tensor]] = {}
    for cell in cells:
        if cell.surrogate is None:
            continue
        name, fact, steps = name_of(cell), cell.preimage["fit"], cell.preimage["route"]["fit_steps"]
        if name not in made and ranks.first:
            tensors = ledger.fit(name)
            if tensors is None:
                say(f"fitting the {fact['surrogate']} surrogate of {cell.views[0][1]}, {steps} steps")
                purifier = cell.source.defended.purifier
                with repeatable(0, name, 0):  # a purifier may answer at random
                    fit(cell.surrogate, purifier, batches(train), len(train), steps, device=ranks.device)
                tensors = {key: tensor.cpu().contiguous() for key, tensor in cell.surrogate.state_dict().items()}
                ledger.keep_fit(name, tensors)
            made[name] = tensors
    ranks.wait()
    for cell in cells:
        if cell.surrogate is None:
            continue
        name = name_of(cell)
        if name not in made:
            made[name] = ledger.fit(name)
        cell.surrogate.load_state_dict(made[name])
        cell.surrogate.to(ranks.device).eval().requires_grad_(False)


def batches(train: Any) -> Callable[[Tensor], Tensor]:
    """The training images at some places; for a damaged file the next, as in training."""
    read = train.__getitem__
    return lambda places: torch.stack([readable(read, int(place), len(train))[0] for place in places])
