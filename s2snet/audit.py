"""`s2snet.audit(model, loader)` and `python -m s2snet.audit`: can the robustness of any classifier be believed?

    python -m s2snet.audit results/NAME                      # audits an evaluation anew, from its files alone
    python -m s2snet.audit model=my_package:build data=cifar10 [SETTING=VALUE ...]

The first needs no model: it checks the rows, and what was probed when they were made. The second attacks and probes
the classifier that `my_package.build()` returns, with or without a purifier in it, with the settings of
conf/experiment/audit.yaml and whatever else `python evaluate.py` takes (classifier.weights=FILE,
classifier.options='{width: 8}', images=500, budgets.linf=[4/255]). Both print the findings with their remedies and
write audit.html, a page to hand to a reviewer. Exit status 1 where the audit fails.
"""

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_THREATS = ("white_box", "query")
_ATTACKS = ("fgsm", "apgd", "apgd_margin", "square")


def audit(
    model: Any,
    loader: Any,
    *,
    budgets: Mapping[str, Sequence[float]] | None = None,
    train: Any = None,
    images: int = 200,
    effort: str = "full",
    output: str | Path = "results/audit",
    **options: Any,
) -> Any:
    """Attacks and probes a classifier, prints the findings and returns them as a pandas DataFrame, the worst first.

    - `model`: a module from images [B, C, H, W] in [0, 1] to logits, in eval mode, or an s2snet.Defended, of whose
      purifier every route is then tried; several by name in a dictionary;
    - `loader`: the test images, as for `s2snet.evaluate`, of which the first `images` are taken; `train`, training
      images, lets purifiers be approximated;
    - `budgets`: {norm: radii}, by default Linf 8/255;
    - `effort`: quick, or full, which also asks stronger attacks whether the first ones had converged;
    - `output`: the result folder: table, rows, report.html and audit.html, a page to hand to a reviewer.

    Of the default attacks `square` goes with the default threat `query`: where you name one kind, the other follows.
    `.attrs["verdicts"]` says PASS, WARN(n) or FAIL(n) of each model. The other options are those of `s2snet.evaluate`.
    ValueError, in one line, for what cannot be audited.
    """
    import pandas

    from s2snet import api
    from s2snet.config.choices import choose
    from s2snet.report.terminal import print_audit

    choose("effort", effort, ("quick", "full"))
    if "threats" in options and "query" not in options["threats"]:
        options.setdefault("attacks", [name for name in _ATTACKS if name != "square"])
    if "attacks" in options and not set(options["attacks"]) & {"square"}:
        options.setdefault("threats", [name for name in _THREATS if name != "query"])
    rows = api.evaluate(
        model,
        loader,
        **{"attacks": _ATTACKS, "threats": _THREATS, **options},
        budgets=budgets,
        train=train,
        images=images,
        audit=effort,
        output=output,
    )
    found = pandas.DataFrame([vars(finding) for finding in rows.attrs["audit"]])
    found.attrs["verdicts"] = {line["defence"]: line["audit"] for line in rows.attrs["table"]}
    print_audit(Path(output))
    print(f"audit:  {Path(output) / 'audit.html'}")
    return found


def anew(folder: Path) -> bool:
    """Audits a result folder from its files, renews its pages and prints the findings; whether nothing failed.

    ValueError, in one line, where no finished evaluation lies there.
    """
    from s2snet import checks
    from s2snet.report.audit_page import write_audit
    from s2snet.report.page import write_report
    from s2snet.report.terminal import print_audit

    found = checks.write(folder, asked=True)
    write_report(folder)
    print_audit(folder)
    print(f"audit:  {write_audit(folder)}")
    return all(finding.verdict != checks.FAIL for finding in found)


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__.strip())
        return
    folders = [word for word in words if "=" not in word]
    if folders:
        if len(words) > 1:
            sys.exit(f"error: {' '.join(words)}: one result folder alone, or model=my_package.my_module:build")
        try:
            sys.exit(0 if anew(Path(folders[0])) else 1)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
    from s2snet.cli import evaluate

    models = [word for word in words if word.startswith("model=")]
    if len(models) != 1:
        sys.exit("error: name one model, such as model=my_package.my_module:build")
    target = models[0].partition("=")[2]
    others = [word for word in words if word not in models]
    sys.argv[1:] = ["experiment=audit", "classifier=custom", f"classifier.target={target}", "strict=true", *others]
    evaluate.main()


class _Callable(types.ModuleType):
    """So that `s2snet.audit(...)` works whether or not somebody has imported the module of that name."""

    def __call__(self, *given: Any, **options: Any) -> Any:
        return audit(*given, **options)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    main()
