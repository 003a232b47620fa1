"""Rows and cells written by hand, for tests of what is computed from them."""

import pyarrow as pa

from s2snet.evaluation.schema import CLEAN, ROW_SCHEMA

EPS = 8 / 255


def rows_of(*groups: dict) -> pa.Table:
    """Rows from groups that each say which of their images are right; what they do not say is empty or 0.

    A list in a group has a value for each of its images; all other values are those of every image.
    """
    columns = {field.name: [] for field in ROW_SCHEMA}
    for group in groups:
        each = {name: values for name, values in group.items() if isinstance(values, list)}
        for place, correct in enumerate(group["correct"]):
            row = {
                "crafted": "",
                "defence": "none",
                "source": "none",
                "threat": CLEAN,
                "route": "",
                "attack": "",
                "norm": "",
                "budget": 0.0,
                "target": -1,
                **group,
                "image": place,
                **{name: values[place] for name, values in each.items()},
                "correct": bool(correct),
            }
            for field in ROW_SCHEMA:
                empty = "" if pa.types.is_string(field.type) else 0
                columns[field.name].append(row.get(field.name, empty))
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in ROW_SCHEMA}, ROW_SCHEMA)


def attacked(correct: list[int], crafted: str, threat: str = "white_box", **naming) -> dict:
    """A group of rows under attack."""
    group = {"route": "exact", "attack": "pgd", "norm": "linf", "budget": EPS} | naming
    return {"correct": correct, "crafted": crafted, "threat": threat, **group}


def cell_of(group: dict, status: str = "done", reason: str | None = None) -> dict:
    """The cell in run.json that a group of rows belongs to."""
    cell = {name: group[name] for name in ("crafted", "threat", "route", "attack", "norm", "budget")}
    return {**cell, "judges": [group.get("defence", "none")], "status": status, "reason": reason}


def line_of(lines: list[dict], **wanted) -> dict:
    """The one line with these values."""
    found = [line for line in lines if all(line[name] == value for name, value in wanted.items())]
    assert len(found) == 1, (wanted, found)
    return found[0]
