"""Train a purifier in both stages on networks and images that the caller has: what `s2snet.train_purifier` runs."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s2snet import models
from s2snet.config.networks import Data
from s2snet.config.recipe import Recipe, Stage1Recipe, Stage2Recipe
from s2snet.config.runtime import Trainer
from s2snet.data import Splits
from s2snet.store import paths, weights
from s2snet.training import checkpoints
from s2snet.training.autoencoder import TrainAutoencoder
from s2snet.training.loaders import derived_seed
from s2snet.training.loop import Job, fit, printer
from s2snet.training.stage import Stage
from s2snet.training.tune import stage_two


@dataclass
class TwoStages:
    """The runs of one purifier, each in a folder of its own below `output`.

    A finished stage is loaded and an interrupted one resumed. ValueError, in one line, if the folder holds a run of
    another recipe, seed, network or data set.
    """

    output: Path
    splits: Splits
    data: Data
    trainer: Trainer
    seed: int

    def autoencoder(self, config: dict[str, Any], recipe: Stage1Recipe) -> nn.Module:
        """Return the autoencoder `models.build(**config)` after stage 1."""
        return self._trained(
            "1", recipe, lambda: TrainAutoencoder(models.build(**config), recipe, self.seed), begun=config
        )

    def finetuned(self, autoencoder: nn.Module, classifier: nn.Module, recipe: Stage2Recipe) -> nn.Module:
        """Return a copy of the autoencoder after stage 2 in front of the classifier. Both are left as they are."""

        def build() -> Stage:
            trainable = copy.deepcopy(autoencoder).requires_grad_(True)  # stage 2 freezes what it must
            return stage_two(trainable, copy.deepcopy(classifier), recipe, self.seed)

        parts = {"autoencoder": weights.fingerprint(autoencoder), "classifier": weights.fingerprint(classifier)}
        return self._trained("2", recipe, build, **parts)

    def _trained(self, name: str, recipe: Recipe, build: Callable[[], Stage], **facts: Any) -> nn.Module:
        """Return the weights of a stage, loaded or trained. `facts` go into their header."""
        folder = self.output / paths.KINDS[name]
        path, last = folder / paths.WEIGHTS, folder / checkpoints.CHECKPOINT
        if path.is_file():
            header = weights.read_header(path)
            expected = {"recipe": asdict(recipe), "seed": self.seed, **facts}
            same_data = header["data"]["train_fingerprint"] == self.splits.train.fingerprint()
            if same_data and expected == {key: header.get(key) for key in expected}:
                return weights.load(path)
            raise ValueError(f"{folder} holds a run of another recipe, seed, network or data; give another output")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, list(paths.KINDS).index(name)))
            stage = build()
        resume = checkpoints.to_resume(folder, "last", recipe, name, overwrite=False) if last.is_file() else None
        job = Job(
            name=name,
            stage=stage,
            splits=self.splits,
            folder=folder,
            data=self.data,
            trainer=self.trainer,
            facts=facts,
            command="s2snet.train_purifier(...)",
            resume=resume,
        )
        return weights.load(fit(job, printer()))
