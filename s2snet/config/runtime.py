"""Where a run trains and is logged, from the command line or from Python. Imports no torch."""

from dataclasses import dataclass


@dataclass
class Trainer:
    """Where a run trains; `trainer` on the command line."""

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    sync_batchnorm: str = "auto"
    workers: int = 0
    progress: bool = True


@dataclass
class Logger:
    """Where a run is logged, beside metrics.csv; `logger` on the command line."""

    name: str = "csv"
    project: str = "s2snet"
    mode: str = "offline"
    pictures: int = 5  # epochs from one picture to the next; 0: none
