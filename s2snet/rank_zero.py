"""Tell which process of a run writes files and prints, before the process group exists. Imports no torch."""

import os


def is_first() -> bool:
    """Return True if this process will be rank 0 under torchrun, SLURM, Lightning or a `NODE_RANK` set by hand."""
    if "RANK" in os.environ:  # torchrun's global rank
        return int(os.environ["RANK"]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))
