"""From the settings of `python analyse.py` to studies: data by name, defences from the shelf, one bench a study."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s2snet import data
from s2snet.analysis import STUDIES, Bench
from s2snet.config.analysis import AnalyseCommand
from s2snet.config.networks import Classifier
from s2snet.store import defences, networks
from s2snet.store.defences import Defence


def analyse(config: AnalyseCommand, config_yaml: str, command: str, explicit: bool, say: Callable[[str], None]) -> Path:
    """Runs the studies that the settings name, one after the other; returns the folder that holds their pages.

    `explicit` says that the user named the defences, so that one without weights is an error and not left out.
    """
    splits = data.load(config.data.name, config.data_root, **config.data.options)
    config = config.with_classes(len(splits.test.classes))
    if not splits.labelled:
        raise ValueError(f"data={config.data.name} has no labels: studies need them")
    notes: list[str] = []

    @cache
    def find() -> list[Defence]:
        return defences.find(config, splits, explicit, notes, say)

    def network(noted: list[str], entry: Mapping[str, Any]) -> nn.Module:
        def note(text: str) -> None:
            noted.append(text)
            say(f"note: {text}")

        chosen = replace(config, classifier=Classifier.of(entry))
        shelf = defences.find_shelf(config.weights, config.runs, config.data.name)
        return networks.find_classifier(chosen, shelf, note)[0]

    output = Path(config.output)
    for chosen in config.study.values():
        name, options = chosen.name, chosen.options
        study = STUDIES[name]
        noted: list[str] = []  # of classifiers that the study itself asked for
        bench = Bench(
            study=name,
            version=study.version,
            data=config.data.name,
            splits=splits,
            folder=output / "analysis" / name,
            find=find,
            network=partial(network, noted),
            seed=config.seed,
            device=_device(config.trainer.accelerator),
            progress=config.trainer.progress,
            say=say,
        )
        say(f"study {name}: {bench.folder}")
        claims = study(bench, **options)
        used = find() if "defences" in vars(bench) else []
        about = {
            "command": command,
            "config": config_yaml,
            "options": options,
            "classes": bench.classes,
            "defences": [{"name": d.name, "title": d.title, "files": d.files, "about": d.about} for d in used],
            "notes": [*(notes if used else []), *noted],
        }
        bench.finish(claims, about)
    return output


def _device(accelerator: str) -> torch.device:
    """The device that an accelerator's name means here. ValueError where there is none such."""
    wanted = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "gpu": "cuda", "cuda": "cuda", "cpu": "cpu"}
    if accelerator not in wanted:
        raise ValueError(f"trainer.accelerator={accelerator}: studies run on auto, cpu or gpu")
    if wanted[accelerator] == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={accelerator}: there is no GPU here")
    return torch.device(wanted[accelerator])
