"""Choose the devices of a run and where it is logged."""

from dataclasses import dataclass
from typing import Any

from s2snet.config.option import option

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def _word(name: str, value: Any) -> str:
    """Return a word, also for YAML's true and false."""
    return str(value).lower()


@dataclass
class Trainer:
    """The devices of a run; `trainer` on the command line."""

    accelerator: str = option("auto", help="auto takes a GPU if there is one; cpu, gpu")
    devices: int = option(1, at_least=1, help="per machine")
    num_nodes: int = option(1, at_least=1, help="machines")
    strategy: str = option("auto", help="of Lightning, such as ddp")
    precision: str = option("32-true", choices=PRECISIONS, help="32-true, bf16-mixed, 16-mixed")
    compile: bool = option(
        False, help="torch.compile of the networks in training: a minute at the start, faster steps on a GPU"
    )
    sync_batchnorm: str = option(
        "auto",
        choices=("auto", "true", "false"),
        parse=_word,
        help="true, false; auto: BatchNorm over all GPUs if a recipe's batch is below 16",
    )
    workers: int = option(0, at_least=0, help="processes that load images, per device")
    progress: bool = option(True, help="show progress bars")


@dataclass
class Logger:
    """The logger of a training in addition to metrics.csv; `logger` on the command line."""

    name: str = option("csv", choices=("csv", "wandb"), help="csv, wandb")
    project: str = option("s2snet", help="of wandb")
    mode: str = option("offline", help="of wandb: online needs `wandb login`; offline, disabled")
    pictures: int = option(
        5, at_least=0, help="epochs between pictures of what the stage does to images; 0: none, and no curves.png"
    )
