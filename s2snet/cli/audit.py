"""Audit an evaluation from its files, or attack, probe and audit a classifier of your own.

    python -m s2snet.audit results/NAME
    python -m s2snet.audit model=my_package:build data=cifar10 [SETTING=VALUE ...]

The first needs no model: it checks the rows and the probes that the evaluation stored. The second evaluates the
classifier that `my_package.build()` returns, with or without a purifier inside. It uses conf/experiment/audit.yaml and
accepts every setting of `python evaluate.py` (classifier.weights=FILE, classifier.options='{width: 8}', images=500,
budgets.linf=[4/255]). Both print the findings with their remedies and write audit.html, a page for a reviewer. The exit
status is 1 if a check fails.
"""

import sys
from pathlib import Path


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__.strip())
        return
    folders = [word for word in words if "=" not in word]
    if folders:
        if len(words) > 1:
            sys.exit(f"error: {' '.join(words)}: expected one result folder, or model=my_package.my_module:build")
        try:
            sys.exit(0 if audit_folder(Path(folders[0])) else 1)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
    models = [word for word in words if word.startswith("model=")]
    if len(models) != 1:
        sys.exit("error: name one model, such as model=my_package.my_module:build")
    audit_model(models[0].partition("=")[2], [word for word in words if word not in models])


def audit_folder(folder: Path) -> bool:
    """Audit a result folder from its files, rewrite its pages and print the findings; return whether no check failed.

    Raises a one-line ValueError if the folder holds no finished evaluation.
    """
    from s2snet.audit import checks
    from s2snet.report.audit_page import write_audit
    from s2snet.report.page import write_report
    from s2snet.report.terminal import print_audit

    findings = checks.write(folder, requested=True)
    write_report(folder)
    print_audit(folder)
    print(f"audit:  {write_audit(folder)}")
    return all(finding.verdict != checks.FAIL for finding in findings)


def audit_model(target: str, settings: list[str]) -> None:
    """Run `python evaluate.py experiment=audit` on the classifier that `target`, package.module:function, returns."""
    from s2snet.cli import evaluate

    sys.argv[1:] = ["experiment=audit", "classifier=custom", f"classifier.target={target}", "strict=true", *settings]
    evaluate.main()
