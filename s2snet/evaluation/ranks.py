"""Where an evaluation runs: one process, or the ranks that Lightning Fabric, torchrun or SLURM starts."""

import contextlib
import datetime
import os
from dataclasses import dataclass, field
from typing import Any

import torch

# A rank that has nothing left waits for the slowest; a cell of a big network may take hours.
PATIENCE = datetime.timedelta(days=7)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass
class Ranks:
    """This process among all: its rank, how many there are, its device, and how to wait for the others."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fabric: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every rank is here."""
        if self.fabric is not None:
            self.fabric.barrier()

    def autocast(self, precision: str) -> contextlib.AbstractContextManager:
        """Mixed precision for crafting; nothing for 32-true."""
        if precision == "32-true":
            return contextlib.nullcontext()
        kind = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device.type, dtype=kind)


def launch(trainer) -> Ranks:
    """Starts the further processes that the trainer settings ask for and joins them.

    `trainer` has accelerator, devices, num_nodes and strategy, as in training. One device of one node needs no
    Fabric (and not its seconds of import); several, or a process that torchrun or SLURM started, do.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun has started all processes and knows how many
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices * nodes == 1:
        return Ranks(device=_device(trainer.accelerator))
    from s2snet import torchvision_cpu

    torchvision_cpu.patch()
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    # Each rank works by itself; the group is only there to wait for each other.
    fabric = Fabric(
        accelerator=trainer.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=PATIENCE),
    )
    fabric.launch()
    return Ranks(fabric.global_rank, fabric.world_size, fabric.device, fabric)


def _device(accelerator: str) -> torch.device:
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if wants_gpu and not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={accelerator}: torch sees no GPU here; trainer=auto takes the CPU")
    return torch.device("cuda" if wants_gpu else "cpu")
