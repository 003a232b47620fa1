"""Define `Job`: the images and the defences of one evaluation, and how they are attacked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s2snet import data
from s2snet.config.evaluation import EvaluateCommand, Evaluation
from s2snet.models import Defended
from s2snet.store import defences
from s2snet.store.defences import Defence

KEEP_ALL_UP_TO = 10_000  # images; above it only those that the report shows are kept


@dataclass
class Job:
    """The images and defences of an evaluation; `config` holds the attacks, the threats and all other options."""

    config: Evaluation
    name: str  # of the data
    images: Any  # the test images: (image, label, index) in ascending order of index; .classes, .fingerprint()
    defences: list[Defence]
    output: Path
    train: Any = None  # training images, for surrogates and universal perturbations; None: no route with a surrogate
    command: str = ""
    yaml: str = ""  # the command's configuration, written to the result folder
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of test images that are evaluated."""
        return min(self.config.images or len(self.images), len(self.images))

    @property
    def kept(self) -> str:
        """The adversarial images that stay on disk: all, sample or none."""
        return self.config.keep or ("all" if self.count <= KEEP_ALL_UP_TO else "sample")

    @property
    def modules(self) -> dict[str, Defended]:
        return {defence.name: defence.module for defence in self.defences}

    @property
    def judges(self) -> dict[str, str]:
        """The fingerprint of each defence."""
        return {defence.name: defence.fingerprint for defence in self.defences}

    @property
    def chunks(self) -> list[range]:
        """The places of the images of each chunk, which are attacked together."""
        return chunks(self.config.chunk, self.count)

    @property
    def sample(self) -> np.ndarray:
        """The places of the images that the report shows, spread over the selection."""
        return np.unique(np.linspace(0, self.count - 1, min(self.config.samples, self.count)).astype(int))


def chunks(size: int, count: int) -> list[range]:
    """Return the places of each chunk of the first `count` images."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def job_of(config: EvaluateCommand, yaml: str, command: str, explicit: bool, say: Callable[[str], None]) -> Job:
    """Return the job of a command: data by name, and the defences whose weights are found.

    A missing defence is left out with a note. If the user named the defences (`explicit`), it raises FileNotFoundError.
    """
    splits = data.load(config.data.name, config.data_root, **config.data.options)
    config = config.with_classes(len(splits.test.classes))
    if not splits.labelled:
        raise ValueError(f"data={config.data.name} has no labels: an evaluation needs them")
    notes: list[str] = []
    return Job(
        config=config,
        name=config.data.name,
        images=splits.test,
        defences=defences.find(config, splits, explicit, notes, say),
        output=Path(config.output),
        train=_fitted_on(splits),
        command=command,
        yaml=yaml,
        notes=notes,
    )


def _fitted_on(splits: data.Splits) -> data.Images | data.ImageFiles | None:
    """Return the images that surrogates and perturbations are fitted on; a stream has none that can be addressed."""
    images = splits.validation if isinstance(splits.train, data.Shards) else splits.train
    return images if len(images) else None
