"""Which of the processes of a run writes and speaks, known before they are joined. Imports no torch."""

import os


def is_first() -> bool:
    """Whether this process will be rank 0: torchrun, SLURM, Lightning and `NODE_RANK` by hand mark the others."""
    if "RANK" in os.environ:  # torchrun's, over all machines
        return int(os.environ["RANK"]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))
