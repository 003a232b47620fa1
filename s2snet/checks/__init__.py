"""The audit's checks: can a number be believed? They read an evaluation's record and the probes taken beside it.

Each check is a function from a Record to answers; its docstring says why, when it warns and fails, and ends with the
remedy (docs/audit.md is made from them). A new check is a function and a line in CHECKS. No model is needed:
`findings("results/NAME")` works on the files; the probes were measured when the evaluation ran (evaluation/probes.py).

Sources of the checks: Carlini et al. (arXiv 1902.06705), Athalye et al. (1802.00420), Tramer et al. (2002.08347),
Croce and Hein (2003.01690), Pintor et al. (2106.09947), Zimmermann et al. (2206.13991).
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from s2snet.atomic_io import make_whole
from s2snet.checks import of_attacks, of_gradients, of_record, of_routes
from s2snet.checks.finding import FAIL, ORDER, Finding, worst
from s2snet.checks.record import Record
from s2snet.evaluation.scores import write_table

OFF = "OFF"  # the verdict where nothing was checked

CHECKS = {
    check.__name__: check
    for check in (
        of_record.ball_and_box,
        of_record.recomputed,
        of_record.label_alignment,
        of_record.input_range,
        of_record.counted_passes,
        of_record.step_budget,
        of_record.denominators,
        of_record.worst_case,
        of_record.leakage,
        of_gradients.randomness,
        of_gradients.test_time_state,
        of_gradients.output_head,
        of_gradients.saturated_logits,
        of_gradients.zero_gradients,
        of_gradients.nan_gradients,
        of_gradients.finite_differences,
        of_gradients.jumps,
        of_gradients.curvature,
        of_gradients.ascent,
        of_gradients.surrogate_valid,
        of_gradients.inner_optimisation,
        of_gradients.admission,
        of_routes.compulsory_routes,
        of_attacks.iterative_vs_single,
        of_attacks.noise,
        of_attacks.less_informed,
        of_attacks.route_gap,
        of_attacks.controls,
        of_attacks.random_control,
        of_attacks.minimal_vs_budget,
        of_attacks.converged,
        of_attacks.active_test,
        of_attacks.monotone,
        of_attacks.eps_one,
    )
}

AUDIT = "audit.json"

__all__ = ["AUDIT", "CHECKS", "FAIL", "Finding", "Record", "claim", "findings", "remedy", "verdicts", "write"]


def findings(folder: str | Path) -> list[Finding]:
    """All findings about a result folder, the worst first, else in the order of CHECKS.

    ValueError, in one line, where no finished evaluation lies there.
    """
    record = Record(Path(folder))
    found = [Finding(name, *answer, remedy=remedy(name)) for name, check in CHECKS.items() for answer in check(record)]
    return sorted(found, key=lambda finding: ORDER.index(finding.verdict))


def claim(check: str) -> str:
    """What a check holds to be so: the first paragraph of its docstring."""
    return " ".join((CHECKS[check].__doc__ or "").partition("\n\n")[0].split())


def remedy(check: str) -> str:
    """The last paragraph of a check's docstring, after `Remedy:`."""
    return " ".join((CHECKS[check].__doc__ or "").partition("Remedy:")[2].split())


def verdicts(found: list[Finding], defences: Iterable[str]) -> dict[str, str]:
    """{defence: PASS, WARN(n) or FAIL(n)}, each with what is said of the whole evaluation."""
    return {name: worst([finding for finding in found if finding.defence in (name, "")]) for name in defences}


def write(folder: str | Path, asked: bool = False) -> list[Finding]:
    """Writes audit.json and the column `audit` of table.csv; returns the findings.

    With `audit=off` there are no findings, and every verdict is OFF, unless somebody `asked` for them afterwards: then
    what can be told without probes is. audit.json also names every check with its claim, for readers that see no code.
    """
    folder = Path(folder)
    record = Record(folder)
    names = [defence["name"] for defence in record.defences]
    off = record.run.get("audit") == OFF.lower() and not asked
    found = [] if off else findings(folder)
    said = verdicts(found, names) if found else dict.fromkeys(names, OFF)
    content = {
        "audit": record.run.get("audit"),
        "verdicts": said,
        "checks": {check: claim(check) for check in CHECKS},
        "findings": [asdict(finding) for finding in found],
    }
    make_whole(folder / AUDIT, lambda path: path.write_text(json.dumps(content, indent=1) + "\n"))
    lines = [{**line, "audit": said.get(line["defence"], "")} for line in record.table]
    make_whole(folder / "table.csv", lambda path: write_table(lines, path))
    return found
