"""Fit what is made on training images: surrogates of purifiers and universal perturbations.

Each is fitted once by the first rank, kept in the ledger and loaded by every rank.
"""

import copy
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from s2snet.data.image_files import first_readable
from s2snet.evaluation.cells import Cell, attack_of, key_of
from s2snet.evaluation.engine import reason_of, repeatable
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.ranks import Ranks
from s2snet.threats import fit

BATCH = 64  # training images per step of a universal perturbation


def name_of(cell: Cell) -> str:
    """Return the key of a cell's surrogate: its kind, its purifier, its training images and its steps."""
    preimage = cell.preimage["fit"] | {"steps": cell.fit_steps}
    return key_of(preimage)


def name_of_perturbation(cell: Cell) -> str:
    """Return the key of a cell's perturbation: everything it depends on, and nothing of the test images."""
    without = ("data", "chunk", "schema", "precision", "leave_early")
    preimage = {key: value for key, value in cell.preimage.items() if key not in without} | {"batch": BATCH}
    return key_of(preimage)


def perturbation(cell: Cell, train: Any, device: torch.device, **other: int) -> Tensor:
    """Fit the perturbation [C, H, W] of a universal cell on training images, in an order that only its seed decides."""
    attack = attack_of(cell)
    draw = torch.Generator().manual_seed(cell.seed)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for places in torch.randperm(len(train), generator=draw).split(BATCH):
                items = [first_readable(train.__getitem__, int(place), len(train)) for place in places]
                labels = torch.tensor([int(item[1]) for item in items])
                yield torch.stack([item[0] for item in items]).to(device), labels.to(device)

    return attack.function(cell.fast, endless(), eps=cell.budget, norm=cell.norm, **{**attack.options, **other})


def seconds_of_surrogate(cell: Cell, train: Any, device: torch.device) -> float:
    """Estimate how long fitting the cell's surrogate takes, from a few steps of a copy after a warm-up."""
    surrogate, purifier = copy.deepcopy(cell.surrogate), cell.source.defended.purifier
    return cell.fit_steps * _seconds_of_a_step(
        lambda steps: fit(surrogate, purifier, batches(train), len(train), steps, device=device)
    )


def seconds_of_perturbation(cell: Cell, train: Any, device: torch.device) -> float:
    """Estimate how long fitting the cell's perturbation takes, from a few steps after a warm-up."""
    attack = attack_of(cell)
    steps = attack.options.get("steps", inspect.signature(attack.function).parameters["steps"].default)
    return steps * _seconds_of_a_step(lambda steps: perturbation(cell, train, device, steps=steps))


def _seconds_of_a_step(make: Callable[[int], Any], steps: int = 3) -> float:
    def finish() -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    make(1)
    finish()
    started = time.perf_counter()
    make(steps)
    finish()
    return (time.perf_counter() - started) / steps


def prepare(cells: list[Cell], train: Any, ledger: Ledger, ranks: Ranks, say: Callable[[str], None]) -> None:
    """Give every cell its surrogate and its perturbation, from the ledger or fitted by the first rank.

    Cells whose preimages describe the same surrogate share it. If a perturbation cannot be fitted, its cell fails.
    """

    def surrogate(cell: Cell, name: str) -> dict[str, Tensor]:
        kind = cell.preimage["fit"]["surrogate"]
        say(f"fitting the {kind} surrogate of {cell.views[0][1]}, {cell.fit_steps} steps")
        purifier = cell.source.defended.purifier
        with repeatable(0, name, 0):  # a purifier may answer at random
            fit(cell.surrogate, purifier, batches(train), len(train), cell.fit_steps, device=ranks.device)
        return cell.surrogate.state_dict()

    def shift(cell: Cell, name: str) -> dict[str, Tensor]:
        say(f"fitting {cell.describe()}")
        try:
            return {"shift": perturbation(cell, train, ranks.device)}
        except Exception as error:  # the failure of one attack is not the run's
            ledger.keep_failure(cell.key, 0, reason_of(error))
            return {}

    with_surrogate = [cell for cell in cells if cell.surrogate is not None]
    for cell, tensors in _fitted(with_surrogate, name_of, surrogate, ledger, ranks):
        cell.surrogate.load_state_dict(tensors)
        cell.surrogate.to(ranks.device).eval().requires_grad_(False)
    universal = [cell for cell in cells if cell.universal]
    for cell, tensors in _fitted(universal, name_of_perturbation, shift, ledger, ranks):
        if tensors is None:
            cell.reason = next(iter(ledger.failures()[cell.key].values()))
        else:
            cell.shift = tensors["shift"].to(ranks.device)


def _fitted(
    cells: list[Cell],
    name: Callable[[Cell], str],
    make: Callable[[Cell, str], dict[str, Tensor]],
    ledger: Ledger,
    ranks: Ranks,
) -> Iterator[tuple[Cell, dict[str, Tensor] | None]]:
    """Yield each cell with its tensors, which the first rank fits if the ledger lacks them; None if that failed.

    Every rank has to exhaust the iterator: the others wait inside.
    """
    needed: dict[str, Cell] = {}
    for cell in cells:
        needed.setdefault(name(cell), cell)
    for key, cell in needed.items():
        if ranks.first and ledger.fit(key) is None:
            tensors = make(cell, key)
            if tensors:
                ledger.keep_fit(key, {part: tensor.cpu().contiguous() for part, tensor in tensors.items()})
    ranks.wait()
    kept = {key: ledger.fit(key) for key in needed}
    for cell in cells:
        yield cell, kept[name(cell)]


def batches(train: Any) -> Callable[[Tensor], Tensor]:
    """Return a function from places to training images; a damaged file is replaced by the next, as in training."""
    read = train.__getitem__
    return lambda places: torch.stack([first_readable(read, int(place), len(train))[0] for place in places])
