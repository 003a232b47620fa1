"""Append to timing.jsonl: seconds and passes, the one file of a result that differs between two equal runs."""

import json
from pathlib import Path
from typing import Any

FILE = "timing.jsonl"


def append(folder: Path, facts: dict[str, Any]) -> None:
    """Write the facts as a line of their own."""
    with open(folder / FILE, "a") as file:
        file.write(json.dumps(facts) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines written so far."""
    path = folder / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
