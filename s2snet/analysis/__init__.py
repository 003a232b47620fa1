"""The studies: why a defence breaks or holds, after the papers that the project stands on. A folder each.

A study is `study(bench, **options) -> list[Claim]` in NAME/study.py; its options and their defaults are those of
conf/study/NAME.yaml. It writes tables of rows and pictures through the bench, and states its claims with numbers,
intervals and n, also where they contradict a paper. What is drawn of them is in s2snet/report/studies/NAME.py, which
reads the rows alone. Raise `version` when rows change.
"""

from collections.abc import Callable

from s2snet.analysis.bench import FAILS, HOLDS, UNDECIDED, Bench, Claim
from s2snet.analysis.directions.study import directions
from s2snet.analysis.gradients.study import gradients
from s2snet.analysis.linearity.study import linearity
from s2snet.analysis.regions.study import regions
from s2snet.analysis.relations.study import relations

STUDIES: dict[str, Callable[..., list[Claim]]] = {
    "gradients": gradients,
    "relations": relations,
    "linearity": linearity,
    "directions": directions,
    "regions": regions,
}

__all__ = ["FAILS", "HOLDS", "STUDIES", "UNDECIDED", "Bench", "Claim"]
