"""Decide what depends on the devices: synchronised BatchNorm, and precisions that they do not support."""

import torch

from s2snet.config.recipe import Recipe
from s2snet.config.runtime import Trainer

# Below this many images a device's own statistics are too noisy (Wu and He, arXiv 1803.08494, figure 1).
SMALL_BATCH = 16


def synchronise_batch_norm(trainer: Trainer, recipe: Recipe) -> bool:
    """Return whether BatchNorm takes its statistics over all devices. ValueError if the devices do not support it.

    `trainer.sync_batchnorm=auto` does so for several GPUs with batches below SMALL_BATCH if BatchNorm is trained.
    """
    gpu = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available())
    if trainer.precision == "16-mixed" and not gpu:
        raise ValueError("trainer.precision=16-mixed: needs a GPU; on the CPU use bf16-mixed or 32-true")
    if trainer.sync_batchnorm == "true" and not gpu:
        raise ValueError("trainer.sync_batchnorm=true: needs GPUs; on the CPU use auto or false")
    if trainer.sync_batchnorm != "auto":
        return trainer.sync_batchnorm == "true"
    several = trainer.devices * trainer.num_nodes > 1
    return gpu and several and recipe.batch_norm == "train" and recipe.batch_size < SMALL_BATCH
