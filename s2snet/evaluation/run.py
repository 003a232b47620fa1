"""Run one evaluation from start to files: plan, engine, results."""

from collections.abc import Callable
from pathlib import Path

from s2snet.evaluation import fitted, progress, ranks, results
from s2snet.evaluation.engine import Engine
from s2snet.evaluation.job import Job
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.plan import Plan, plan
from s2snet.rank_zero import is_first


def run(job: Job, say: Callable[[str], None], probe: Callable[[Job, Plan, Engine], None] | None = None) -> Path:
    """Evaluate and return the result folder (evaluation/schema.py lists its files).

    Every rank runs this: each crafts and judges its share, and the first writes the results. Before that it calls
    `probe`, which measures the finished evaluation for the audit (`s2snet.audit.probes.measure.measure`). Raises
    KeyboardInterrupt if the user stops it: the ledger keeps what is done, and the same command continues.
    """
    planned = plan(job)
    first = is_first()
    ledger = Ledger(job.output / "ledger", hold=first)
    try:
        if first:
            ledger.forget_failures()
            (job.output / "config.yaml").write_text(job.yaml)
        here = ranks.launch(job.config.trainer)
        for module in (*job.modules.values(), *planned.copies.values()):
            module.to(here.device)
        fitted.prepare(planned.cells, job.train, ledger, here, say)
        here.wait()
        engine = Engine(job, planned, ledger, here)
        with progress.shown(job, planned, here, say) as bar:
            finished = engine.run(bar)
        if not finished:
            say(f"stopped; the same command continues from {job.output}")
            raise KeyboardInterrupt
        here.wait()
        if here.first:
            engine.conclude()
            if probe is not None:
                probe(job, planned, engine)
            results.write(job, planned, engine)
        here.wait()
    finally:
        ledger.close()
    if first:
        for path in ledger.damaged:
            say(f"damaged file moved aside and made again: {path}")
        for cell in planned.cells:
            if cell.status != "done":
                say(f"failed: {cell.describe()}: {cell.reason}")
    return job.output
