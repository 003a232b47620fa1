"""`s2snet.audit(model, loader)` and `python -m s2snet.audit`: can the robustness of any classifier be believed?

    python -m s2snet.audit results/NAME                      # the findings about an evaluation, from its files alone
    python -m s2snet.audit model=my_package:build data=cifar10 [SETTING=VALUE ...]

The second attacks and probes the classifier that `my_package.build()` returns, with or without a purifier in it, with
the settings of conf/experiment/audit.yaml and whatever else `python evaluate.py` takes (classifier.weights=FILE,
classifier.options='{width: 8}', images=500, budgets.linf=[4/255]). Exit status 1 where the audit fails.
"""

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_THREATS = ("white_box", "query")
_ATTACKS = {
    "fgsm": {"loss": "margin"},
    "pgd": {"loss": "margin"},
    "apgd": {"loss": "dlr"},
    "square": {"steps": 500},
}


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

    `.attrs["verdicts"]` says PASS, WARN(n) or FAIL(n) of each model. The other options are those of `s2snet.evaluate`.
    """
    import pandas

    from s2snet import api

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
    told(output)
    return found


def told(folder: str | Path) -> bool:
    """Prints what was found about a result folder, with remedies; returns whether nothing failed."""
    import textwrap

    from s2snet import checks

    found = checks.findings(folder)
    names = list(dict.fromkeys(finding.defence for finding in found if finding.defence))
    said = checks.verdicts(found, names)
    for name in names:
        print(f"{name}: {said[name]}")
        for finding in found:
            if finding.defence in (name, "") and finding.verdict in ("fail", "warn"):
                part = f" [{finding.part}]" if finding.part else ""
                print(f"  {finding.verdict:4} {finding.check}{part}: {finding.evidence}")
                print(textwrap.fill(finding.remedy, 110, initial_indent=" " * 9 + "-> ", subsequent_indent=" " * 12))
    return not any(verdict.startswith("FAIL") for verdict in said.values())


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__.strip())
        return
    if "=" not in words[0]:
        try:
            sys.exit(0 if told(words[0]) else 1)
        except ValueError as error:
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
