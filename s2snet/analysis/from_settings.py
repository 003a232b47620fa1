"""From the settings of `python analyse.py` to studies: data by name, defences from the shelf, one bench a study."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from s2snet import data
from s2snet.analysis import STUDIES, Bench
from s2snet.evaluation.defences import Defence
from s2snet.evaluation.from_settings import find_defences


def analyse(settings, config_yaml: str, command: str, explicit: bool, say: Callable[[str], None]) -> Path:
    """Runs the studies that the settings name, one after the other; returns the folder that holds their pages.

    `explicit` says that the user named the defences, so that one without weights is an error and not left out.
    """
    splits = data.load_chosen(settings)
    if not splits.labelled:
        raise ValueError(f"data={settings.data['name']} has no labels: studies need them")
    notes: list[str] = []

    @cache
    def find() -> list[Defence]:
        return find_defences(settings, splits, explicit, notes, say)

    output = Path(settings.output)
    for label, options in settings.study.items():
        options = dict(options)
        name = options.pop("name", label)
        study = STUDIES[name]
        bench = Bench(
            study=name,
            version=study.version,
            data=settings.data["name"],
            splits=splits,
            folder=output / "analysis" / name,
            find=find,
            seed=settings.seed,
            device=_device(settings.trainer.accelerator),
            progress=settings.trainer.progress,
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
            "notes": notes if used else [],
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
