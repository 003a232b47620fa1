"""A result folder written by an earlier version: the same command continues from it, and audit and pages read it.

`earlier_result` was written before the options of an evaluation were dataclasses, by

    python evaluate.py weights=checkpoints/released/digits images=4 chunk=4 attack=[fgsm] defence=[none,s2snet]
        threat.white_box.routes=[exact] budgets.linf=[8/255] keep=none samples=0 audit=off output=r
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
from jobs import crafted
from tiny import composed

from s2snet.audit import checks
from s2snet.cli import settings
from s2snet.evaluation.job import job_of
from s2snet.evaluation.run import run
from s2snet.report.audit_page import write_audit
from s2snet.report.page import write_report
from s2snet.store import paths

EARLIER = Path(__file__).parent / "earlier_result"
WORDS = [
    "images=4", "chunk=4", "attack=[fgsm]", "defence=[none,s2snet]", "threat.white_box.routes=[exact]",
    "budgets.linf=[8/255]", "keep=none", "samples=0", "audit=off", "output=r", "trainer.accelerator=cpu",
    "trainer.progress=false",
]  # fmt: skip


def test_the_same_command_continues_from_it_and_changes_no_number():
    shutil.copytree(EARLIER, "r")
    config = settings.evaluate_settings(composed("evaluate", *WORDS, f"weights={paths.released() / 'digits'}"))
    folder = run(job_of(config, "", "", explicit=True, say=lambda text: None), lambda text: None)
    checks.write(folder)
    assert crafted(folder) == crafted(EARLIER)
    assert pq.read_table(folder / "rows.parquet").equals(pq.read_table(EARLIER / "rows.parquet"))
    for name in ("table.csv", "measures.csv"):
        assert (folder / name).read_bytes() == (EARLIER / name).read_bytes(), name
    files = {path.relative_to(folder) for path in (folder / "ledger").rglob("*.*")}
    assert files == {path.relative_to(EARLIER) for path in (EARLIER / "ledger").rglob("*.*")}
    before, after = (json.loads((each / "run.json").read_text())["cells"] for each in (EARLIER, folder))
    assert after == before


def test_audit_and_pages_read_it():
    shutil.copytree(EARLIER, "r")
    findings = checks.write(Path("r"), requested=True)
    assert findings
    assert "s2snet" in write_report(Path("r")).read_text() and write_audit(Path("r")).is_file()
