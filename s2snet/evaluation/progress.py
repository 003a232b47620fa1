"""Show a running evaluation: the current cell, images per second and the time left; and handle Ctrl-C."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from s2snet.evaluation.cells import Cell
from s2snet.evaluation.job import Job
from s2snet.evaluation.plan import Plan
from s2snet.evaluation.ranks import Ranks


class Progress:
    """The engine reports to it and stops if `stopped` is set. This one shows nothing and never stops."""

    stopped = False

    def advance(self, cell: Cell, images: int) -> None:
        """Report that this number of images of a cell are crafted and judged."""


class Bar(Progress):
    """A bar on stderr that counts passes, not cells, so that the time left is realistic."""

    def __init__(self, job: Job, plan: Plan, here: Ranks):
        self._passes = {}
        for cell in plan.cells:
            cost = plan.costs.of(cell)
            self._passes[id(cell)] = 1 + cost.forwards + cost.backwards
        self._world = here.world
        self._last = time.perf_counter()
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not job.config.trainer.progress or not here.first,
        )
        self._title = f"{len(plan.cells)} cells, {job.count} images"
        self._task = self.bar.add_task(self._title, total=sum(self._passes.values()) * job.count, rate="")

    def advance(self, cell: Cell, images: int) -> None:
        now = time.perf_counter()
        rate = images / max(now - self._last, 1e-9)
        self._last = now
        passes = self._passes[id(cell)] * images * self._world
        self.bar.update(self._task, advance=passes, description=cell.describe(), rate=f"{rate:.3g} images/s")

    def finish(self) -> None:
        self.bar.update(self._task, description=self._title, rate="")


@contextlib.contextmanager
def shown(job: Job, plan: Plan, here: Ranks, say: Callable[[str], None]) -> Iterator[Progress]:
    """Show a bar. The first Ctrl-C inside sets its `stopped`; the second raises KeyboardInterrupt at once."""
    progress = Bar(job, plan, here)

    def interrupt(number, frame) -> None:
        if progress.stopped:
            raise KeyboardInterrupt
        progress.stopped = True
        say("stopping after the current chunk; Ctrl-C again stops at once")

    with progress.bar, _handler(interrupt):
        yield progress
        progress.finish()


@contextlib.contextmanager
def _handler(interrupt: Callable) -> Iterator[None]:
    """Let Ctrl-C call `interrupt` inside. Only the main thread can set a handler; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
