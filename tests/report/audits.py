"""A made-up audit.json, as s2snet.audit.checks.write writes it: every verdict, on the defences of result_folder."""

import json
from pathlib import Path

CHECKS = {
    "ball_and_box": "Every adversarial image lies within its radius.",
    "label_alignment": "Labels and classes are in the same order.",
    "zero_gradients": "The margin has a gradient at every image.",
    "noise": "Random noise fools no image that the attacks miss.",
    "minimal_vs_budget": "Minimal attacks and budget attacks agree.",
    "eps_one": "Without a limit on the perturbation no image stays correct.",
}
FINDINGS = [  # check, defence, verdict, evidence, part, remedy
    ("zero_gradients", "s2snet", "fail", "zero on 100% of 32 points", "purifier", "take routes that see around it."),
    ("label_alignment", "", "warn", "labels of cat fit cat", "data", "bring them into one order."),
    ("noise", "s2snet", "warn", "1 of 64 images is fooled by noise only", "defence", "look at gradients first."),
    ("zero_gradients", "none", "pass", "zero on 0% of 32 points", "defence", "take routes that see around it."),
    ("noise", "none", "pass", "0 of 64 images are fooled by noise only", "defence", "look at gradients first."),
    ("ball_and_box", "", "pass", "all 960 rows are within their radius", "attack", "fix the projection."),
    ("minimal_vs_budget", "none", "not applicable", "needs 200 images", "", "more steps."),
]
VERDICTS = {"none": "WARN(1)", "autoencoder": "WARN(1)", "s2snet": "FAIL(1)", "adversarial": "PASS"}


def audited(folder: Path, audit: str = "quick", findings: list[tuple] = FINDINGS, **verdicts: str) -> Path:
    """Write audit.json into a result folder and return the folder."""
    names = ("check", "defence", "verdict", "evidence", "part", "remedy")
    content = {
        "audit": audit,
        "verdicts": VERDICTS | verdicts,
        "checks": CHECKS,
        "findings": [dict(zip(names, finding, strict=True)) for finding in findings],
    }
    (folder / "audit.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
