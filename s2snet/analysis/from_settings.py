"""Run the studies that `python analyse.py` names: load the data, find the defences, make a bench for each study."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn

from s2snet import analysis, data
from s2snet.analysis.bench import Bench
from s2snet.config.analysis import AnalyseCommand
from s2snet.config.networks import Classifier
from s2snet.store import defences, networks
from s2snet.store.defences import Defence


def analyse(config: AnalyseCommand, config_yaml: str, command: str, explicit: bool, say: Callable[[str], None]) -> Path:
    """Run the chosen studies one after the other and return the folder for their pages.

    `explicit` is whether the user named the defences: then one without weights is an error and is not left out.
    """
    splits = data.load(config.data.name, config.data_root, **config.data.options)
    config = config.with_classes(len(splits.test.classes))
    if not splits.labelled:
        raise ValueError(f"data={config.data.name} has no labels: studies need them")
    defence_notes: list[str] = []

    @cache
    def find() -> list[Defence]:
        return defences.find(config, splits, explicit, defence_notes, say)

    def find_classifier(notes: list[str], classifier: Classifier) -> nn.Module:
        def note(text: str) -> None:
            notes.append(text)
            say(f"note: {text}")

        available = defences.find_shelf(config.weights, config.runs, config.data.name)
        return networks.find_classifier(replace(config, classifier=classifier), available, note)[0]

    output = Path(config.output)
    for chosen in config.study.values():
        study = analysis.load(chosen.name, "study")
        notes: list[str] = []  # on classifiers that the study itself loads
        bench = Bench(
            study=chosen.name,
            version=study.VERSION,
            data=config.data.name,
            splits=splits,
            folder=output / "analysis" / chosen.name,
            find_defences=find,
            find_classifier=partial(find_classifier, notes),
            seed=config.seed,
            device=_device(config.trainer.accelerator),
            progress=config.trainer.progress,
            log=say,
        )
        say(f"study {chosen.name}: {bench.folder}")
        claims = study.run(bench, **chosen.options)
        used = find() if "defences" in vars(bench) else []
        about = {
            "command": command,
            "config": config_yaml,
            "options": chosen.options,
            "classes": bench.classes,
            "defences": [{"name": d.name, "title": d.title, "files": d.files, "about": d.about} for d in used],
            "notes": [*(defence_notes if used else []), *notes],
        }
        bench.finish(claims, about)
    return output


def _device(accelerator: str) -> torch.device:
    """Return the device of an accelerator's name. ValueError for an unknown name or a missing GPU."""
    devices = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "gpu": "cuda", "cuda": "cuda", "cpu": "cpu"}
    if accelerator not in devices:
        raise ValueError(f"trainer.accelerator={accelerator}: studies run on auto, cpu or gpu")
    if devices[accelerator] == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={accelerator}: there is no GPU here")
    return torch.device(devices[accelerator])
