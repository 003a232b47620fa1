"""Studies of why a defence breaks or holds, after the papers that the project builds on.

Every study has a folder of one layout:

    s2snet/analysis/NAME/study.py     VERSION and run(bench, **options) -> list[Claim]: what is computed, in order
    s2snet/analysis/NAME/measures.py  numbers from modules and images
    s2snet/analysis/NAME/claims.py    claims from these numbers, with intervals; imports no torch
    s2snet/analysis/NAME/figures.py   TITLE, QUESTION and figures(tables), drawn from the tables alone; imports no torch

A short study keeps its measures and claims in study.py. A long one has further files, such as tables.py, which turns
measures into rows. The options and their defaults are the keyword arguments of `run` and conf/study/NAME.yaml. A study
writes tables, pictures and claims through the bench, including claims that contradict a paper. Raise VERSION if rows
change.

This module imports no torch, so that the report can look up titles and figures.
"""

from importlib import import_module
from types import ModuleType

from s2snet.config.choices import choose

# Name of a study: what it is about, as README.md lists it (scripts/analysis_docs.py).
STUDIES = {
    "gradients": "what a purifier does to gradients, and what index maps carry past it",
    "relations": "classifiers in adversarial space: whose perturbations transfer, who reads whom",
    "linearity": "the linear explanation: scores along a direction, dimension, maxout, RBF",
    "directions": "the directions a classifier uses, and what an attack needs of them",
    "regions": "where it looks, where it is attacked, and what removing a region is worth",
}


def load(study: str, part: str) -> ModuleType:
    """Return a module of a study: `study`, which imports torch, or `figures`, which does not."""
    choose("study", study, STUDIES)
    return import_module(f"s2snet.analysis.{study}.{part}")
