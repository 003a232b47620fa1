"""What is made on training images: surrogates of purifiers and universal perturbations.

Made once by the first rank, kept in the ledger, loaded by every rank.
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
from s2snet.threats.surrogates import VERSION

BATCH = 64  # training images that a step of a universal perturbation asks about


def training_facts(images: Any) -> dict[str, Any]:
    """What surrogates and perturbations depend on besides their module: part of the key of each cell with one."""
    return {"train": images.fingerprint(), "version": VERSION}


def name_of(cell: Cell) -> str:
    """The key of a cell's surrogate: what it is, of which purifier, fitted on what, how long."""
    preimage = cell.preimage["fit"] | {"steps": cell.preimage["route"]["fit_steps"]}
    return key_of(preimage)


def name_of_perturbation(cell: Cell) -> str:
    """The key of a cell's perturbation: all that it depends on, and nothing of the test images."""
    without = ("data", "chunk", "schema", "precision", "leave_early")
    preimage = {key: value for key, value in cell.preimage.items() if key not in without} | {"batch": BATCH}
    return key_of(preimage)


def perturbation(cell: Cell, train: Any, device: torch.device, **other: int) -> Tensor:
    """The perturbation [C, H, W] of a universal cell, from training images in an order that its seed alone decides."""
    attack, chosen = attack_of(cell)
    draw = torch.Generator().manual_seed(cell.seed)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for places in torch.randperm(len(train), generator=draw).split(BATCH):
                items = [first_readable(train.__getitem__, int(place), len(train)) for place in places]
                labels = torch.tensor([int(item[1]) for item in items])
                yield torch.stack([item[0] for item in items]).to(device), labels.to(device)

    return attack(cell.fast, endless(), eps=cell.budget, norm=cell.norm, **{**chosen, **other})


def seconds_of_surrogate(cell: Cell, train: Any, device: torch.device) -> float:
    """About what fitting the cell's surrogate takes, from a few steps of a copy after a warm-up."""
    surrogate, purifier = copy.deepcopy(cell.surrogate), cell.source.defended.purifier
    return cell.preimage["route"]["fit_steps"] * _seconds_of_a_step(
        lambda steps: fit(surrogate, purifier, batches(train), len(train), steps, device=device)
    )


def seconds_of_perturbation(cell: Cell, train: Any, device: torch.device) -> float:
    """About what making the cell's perturbation takes, from a few steps after a warm-up."""
    attack, chosen = attack_of(cell)
    steps = chosen.get("steps", inspect.signature(attack).parameters["steps"].default)
    return steps * _seconds_of_a_step(lambda steps: perturbation(cell, train, device, steps=steps))


def _seconds_of_a_step(make: Callable[[int], Any], steps: int = 3) -> float:
    def done() -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    make(1)
    done()
    started = time.perf_counter()
    make(steps)
    done()
    return (time.perf_counter() - started) / steps


def prepare(cells: list[Cell], train: Any, ledger: Ledger, ranks: Ranks, say: Callable[[str], None]) -> None:
    """Gives every cell its surrogate and its perturbation: from the ledger, or made by the first rank.

    A purifier's surrogate is shared by all cells whose preimage says the same of it. A perturbation that cannot be made
    is that cell's failure.
    """

    def surrogate(cell: Cell, name: str) -> dict[str, Tensor]:
        fact, steps = cell.preimage["fit"], cell.preimage["route"]["fit_steps"]
        say(f"fitting the {fact['surrogate']} surrogate of {cell.views[0][1]}, {steps} steps")
        with repeatable(0, name, 0):  # a purifier may answer at random
            fit(cell.surrogate, cell.source.defended.purifier, batches(train), len(train), steps, device=ranks.device)
        return cell.surrogate.state_dict()

    def shift(cell: Cell, name: str) -> dict[str, Tensor]:
        say(f"fitting {cell.describe()}")
        try:
            return {"shift": perturbation(cell, train, ranks.device)}
        except Exception as error:  # one attack's failure is that cell's, not the run's
            ledger.keep_failure(cell.key, 0, reason_of(error))
            return {}

    fitted = [cell for cell in cells if cell.surrogate is not None]
    for cell, tensors in _made(fitted, name_of, surrogate, ledger, ranks):
        cell.surrogate.load_state_dict(tensors)
        cell.surrogate.to(ranks.device).eval().requires_grad_(False)
    universal = [cell for cell in cells if cell.universal]
    for cell, tensors in _made(universal, name_of_perturbation, shift, ledger, ranks):
        if tensors is None:
            cell.reason = next(iter(ledger.failures()[cell.key].values()))
        else:
            cell.shift = tensors["shift"].to(ranks.device)


def _made(
    cells: list[Cell],
    name: Callable[[Cell], str],
    make: Callable[[Cell, str], dict[str, Tensor]],
    ledger: Ledger,
    ranks: Ranks,
) -> Iterator[tuple[Cell, dict[str, Tensor] | None]]:
    """Each cell with its tensors, which the first rank makes where the ledger lacks them; None where it could not.

    To be used up by every rank: the others wait inside.
    """
    wanted: dict[str, Cell] = {}
    for cell in cells:
        wanted.setdefault(name(cell), cell)
    for key, cell in wanted.items():
        if ranks.first and ledger.fit(key) is None:
            tensors = make(cell, key)
            if tensors:
                ledger.keep_fit(key, {part: tensor.cpu().contiguous() for part, tensor in tensors.items()})
    ranks.wait()
    made = {key: ledger.fit(key) for key in wanted}
    for cell in cells:
        yield cell, made[name(cell)]


def batches(train: Any) -> Callable[[Tensor], Tensor]:
    """The training images at some places; for a damaged file the next, as in training."""
    read = train.__getitem__
    return lambda places: torch.stack([first_readable(read, int(place), len(train))[0] for place in places])
