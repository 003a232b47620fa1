"""What a user sees while an evaluation runs: the cell at work, images per second, the time left; and Ctrl-C."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from s2snet.evaluation.cells import Cell
from s2snet.evaluation.engine import chunks
from s2snet.evaluation.ranks import Ranks


@contextlib.contextmanager
def shown(job, planned, here: Ranks, say: Callable[[str], None]) -> Iterator[tuple[Callable, Callable, Callable]]:
    """(tick, note, stop) for the engine. The bar counts passes, not cells, so that the time left means something.

    The first Ctrl-C lets the piece of work in hand end; the second ends at once.
    """
    cells, sizes = planned.cells, [len(places) for places in chunks(job.chunk, job.count)]
    weights = {id(cell): 1 + planned.costs.of(cell).forwards + planned.costs.of(cell).backwards for cell in cells}
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not job.trainer.progress or not here.first,
    )
    asked = threading.Event()
    last = [time.perf_counter()]

    def tick(cell: Cell, chunk: int) -> None:
        now = time.perf_counter()
        rate = sizes[chunk] / max(now - last[0], 1e-9)
        last[0] = now
        advance = weights[id(cell)] * sizes[chunk] * here.world
        bar.update(task, advance=advance, description=cell.describe(), rate=f"{rate:.3g} images/s")

    def note(facts: dict[str, Any]) -> None:
        with open(job.output / "timing.jsonl", "a") as timing:
            timing.write(json.dumps(facts) + "\n")

    def interrupt(number, frame) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say("ending after the chunk in hand; Ctrl-C again ends at once")

    title = f"{len(cells)} cells, {job.count} images"
    with bar, _handler(interrupt):
        task = bar.add_task(title, total=sum(weights.values()) * sum(sizes), rate="")
        yield tick, note, asked.is_set
        bar.update(task, description=title, rate="")


@contextlib.contextmanager
def _handler(interrupt: Callable) -> Iterator[None]:
    """Ctrl-C calls `interrupt` inside; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
