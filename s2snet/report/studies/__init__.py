"""How each study is shown: its title, its question, and the figures drawn from its tables. One file a study.

A file has TITLE, QUESTION (what is asked, in two or three sentences, with the paper) and `figures(tables)`, which gets
{table: rows} as read from the CSV files, and returns what is to be drawn. No torch, no files, no models.
"""

from types import ModuleType

from s2snet.report.studies import directions, gradients, linearity, regions, relations

STUDIES: dict[str, ModuleType] = {
    "gradients": gradients,
    "relations": relations,
    "linearity": linearity,
    "directions": directions,
    "regions": regions,
}
