"""Checks of the audit: can a reported number be believed? They read result files only and need no model.

Each check is a function from a `Record` to `Answer`s. Its docstring states a claim, explains why it matters and when
the check warns or fails, and ends with a remedy; docs/audit.md is generated from these docstrings. To add a check,
write the function and list it in CHECKS. Measurements that need the model are taken during the evaluation
(s2snet/audit/probes) and stored in probes.json, so `findings("results/NAME")` works on the files alone.

Sources of the checks: Carlini et al. (arXiv 1902.06705), Athalye et al. (1802.00420), Tramer et al. (2002.08347),
Croce and Hein (2003.01690), Pintor et al. (2106.09947), Zimmermann et al. (2206.13991).
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from s2snet.atomic_io import make_whole
from s2snet.audit.checks import attacks, defence, results, routes
from s2snet.audit.checks.finding import FAIL, ORDER, Finding, summary
from s2snet.audit.checks.record import Record
from s2snet.evaluation.scores import write_table

OFF = "OFF"  # the verdict if nothing was checked

CHECKS = {
    check.__name__: check
    for check in (
        results.ball_and_box,
        results.recomputed,
        results.label_alignment,
        results.input_range,
        results.counted_passes,
        results.step_budget,
        results.denominators,
        results.worst_case,
        results.leakage,
        defence.randomness,
        defence.test_time_state,
        defence.output_head,
        defence.saturated_logits,
        defence.zero_gradients,
        defence.nan_gradients,
        defence.finite_differences,
        defence.jumps,
        defence.curvature,
        defence.ascent,
        defence.surrogate_valid,
        defence.inner_optimisation,
        defence.admission,
        routes.compulsory_routes,
        attacks.iterative_vs_single,
        attacks.noise,
        attacks.less_informed,
        attacks.route_gap,
        attacks.controls,
        attacks.random_control,
        attacks.minimal_vs_budget,
        attacks.converged,
        attacks.active_test,
        attacks.monotone,
        attacks.eps_one,
    )
}

AUDIT = "audit.json"

__all__ = ["AUDIT", "CHECKS", "FAIL", "Finding", "Record", "claim", "findings", "remedy", "verdicts", "write"]


def findings(folder: str | Path) -> list[Finding]:
    """Return all findings on a result folder, the worst first, otherwise in the order of CHECKS.

    Raises a one-line ValueError if the folder holds no finished evaluation.
    """
    record = Record(Path(folder))
    unsorted = [
        Finding(name, *answer, remedy=remedy(name)) for name, check in CHECKS.items() for answer in check(record)
    ]
    return sorted(unsorted, key=lambda finding: ORDER.index(finding.verdict))


def claim(check: str) -> str:
    """Return the claim that a check tests: the first paragraph of its docstring."""
    return " ".join((CHECKS[check].__doc__ or "").partition("\n\n")[0].split())


def remedy(check: str) -> str:
    """Return the remedy of a check: the last paragraph of its docstring, after `Remedy:`."""
    return " ".join((CHECKS[check].__doc__ or "").partition("Remedy:")[2].split())


def verdicts(findings: list[Finding], defences: Iterable[str]) -> dict[str, str]:
    """Return {defence: PASS, WARN(n) or FAIL(n)}; findings on the whole evaluation count for every defence."""
    return {name: summary([finding for finding in findings if finding.defence in (name, "")]) for name in defences}


def write(folder: str | Path, requested: bool = False) -> list[Finding]:
    """Write audit.json and the column `audit` of table.csv; return the findings.

    After an evaluation with `audit=off` there are no findings and every verdict is OFF, unless `requested` is set: then
    the checks that need no probes run. audit.json also lists every check with its claim, for readers without the code.
    """
    folder = Path(folder)
    record = Record(folder)
    names = [defence["name"] for defence in record.defences]
    off = record.run.get("audit") == OFF.lower() and not requested
    all_findings = [] if off else findings(folder)
    by_defence = verdicts(all_findings, names) if all_findings else dict.fromkeys(names, OFF)
    content = {
        "audit": record.run.get("audit"),
        "verdicts": by_defence,
        "checks": {check: claim(check) for check in CHECKS},
        "findings": [asdict(finding) for finding in all_findings],
    }
    make_whole(folder / AUDIT, lambda path: path.write_text(json.dumps(content, indent=1) + "\n"))
    lines = [{**line, "audit": by_defence.get(line["defence"], "")} for line in record.table]
    make_whole(folder / "table.csv", lambda path: write_table(lines, path))
    return all_findings
