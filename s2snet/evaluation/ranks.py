"""Run an evaluation in one process, or in the ranks that Lightning Fabric, torchrun or SLURM starts."""

import contextlib
import datetime
import os
from dataclasses import dataclass, field
from typing import Any

import torch

from s2snet.config.runtime import Trainer

# A rank that has finished waits for the slowest; a cell of a big network may take hours.
PATIENCE = datetime.timedelta(days=7)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass
class Ranks:
    """This process among all: its rank, their number, its device, and how to wait for the others."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fabric: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every rank has reached this point."""
        if self.fabric is not None:
            self.fabric.barrier()

    def autocast(self, precision: str) -> contextlib.AbstractContextManager:
        """Return a context for crafting in mixed precision; it does nothing for 32-true."""
        if precision == "32-true":
            return contextlib.nullcontext()
        kind = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device.type, dtype=kind)


def launch(trainer: Trainer) -> Ranks:
    """Start the other processes that the trainer configuration asks for and join them.

    One device of one node needs no Fabric and skips its seconds of import; several devices, or a process that torchrun
    or SLURM started, need it.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun has started all processes and knows how many
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices * nodes == 1:
        return Ranks(device=device_of(trainer.accelerator))
    from s2snet import torchvision_cpu

    torchvision_cpu.patch()
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    # Each rank works on its own; the process group is needed only for waiting.
    fabric = Fabric(
        accelerator=trainer.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=PATIENCE),
    )
    fabric.launch()
    return Ranks(fabric.global_rank, fabric.world_size, fabric.device, fabric)


def device_of(accelerator: str) -> torch.device:
    """Return the device that an accelerator's name means here. Raises ValueError for a GPU that is not there."""
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if wants_gpu and not torch.cuda.is_available():
        raise ValueError(
            f"trainer.accelerator={accelerator}: expected a GPU, and torch finds none; use trainer=auto for the CPU"
        )
    return torch.device("cuda" if wants_gpu else "cpu")
