"""Define all settings of `python analyse.py`."""

from dataclasses import dataclass

from s2snet.config.evaluation import DefenceChoice
from s2snet.config.networks import Choice, Networks
from s2snet.config.option import option
from s2snet.config.runtime import Trainer


@dataclass
class Study(Choice):
    """A study of s2snet.analysis.STUDIES and its options, as in conf/study/NAME.yaml."""


@dataclass(kw_only=True)
class AnalyseCommand(Networks):
    """One analysis: which studies, of which defences."""

    defence: dict[str, DefenceChoice] = option({}, help="the defences, by name")
    study: dict[str, Study] = option({}, help="the studies, by label")
    trainer: Trainer = option(Trainer, help="the device")
    seed: int = option(0, help="of every random choice")
    weights: str | None = option(
        None, help="folder with weights; null takes runs/DATA if anything was trained, else the released ones"
    )
    output: str = option(help="the result folder; a study's files are in OUTPUT/analysis/STUDY")
    debug: bool = option(False, help="full tracebacks")

    def check_together(self, name: str) -> None:
        """ValueError, in one line, for more than one device."""
        if self.trainer.devices * self.trainer.num_nodes > 1:
            raise ValueError(f"trainer.devices={self.trainer.devices}: a study runs in one process, on one device")
