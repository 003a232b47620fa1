"""The audit: can the robustness of a classifier be believed?

    checks/     grade what an evaluation wrote and what the probes measured; read files, import no torch
    probes/     measure a defence with fresh forward and backward passes while its evaluation runs

`s2snet.audit(model, loader)` evaluates and audits any classifier. cli/audit.py is the command `python -m s2snet.audit`.
"""

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

_THREATS = ("white_box", "query")
_ATTACKS = ("fgsm", "apgd", "apgd_margin", "square")


def audit(
    model: Any,
    loader: Any,
    *,
    budgets: Mapping[str, Sequence[float]] | None = None,
    train: Any = None,
    images: int = 200,
    audit: str = "full",
    output: str | Path = "results/audit",
    **options: Any,
) -> "pandas.DataFrame":
    """Attack and probe a classifier, print the findings and return them as a DataFrame, the worst first.

    - `model`: a module from images [B, C, H, W] in [0, 1] to logits, in eval mode, or an s2snet.Defended, which is
      attacked by every route through its purifier; a dictionary audits several by name;
    - `loader`: the test images, as for `s2snet.evaluate`; the first `images` are used. `train`: training images, needed
      by the routes that approximate a purifier;
    - `budgets`: {norm: radii}, by default Linf 8/255;
    - `audit`: quick, or full, which also runs stronger attacks to test whether the first ones had converged;
    - `output`: the result folder with table, rows, report.html and audit.html, a page for a reviewer.

    Among the default attacks, `square` belongs to the default threat `query`: if you name one kind, the other follows.
    The verdict on each model, PASS, WARN(n) or FAIL(n), is in `.attrs["verdicts"]`. Other options are passed on to
    `s2snet.evaluate`. Raises a one-line ValueError if the model or the data cannot be audited.
    """
    import pandas

    from s2snet import api
    from s2snet.config.choices import choose
    from s2snet.report.terminal import print_audit

    choose("audit", audit, ("quick", "full"))
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
        audit=audit,
        output=output,
    )
    findings = pandas.DataFrame([vars(finding) for finding in rows.attrs["audit"]])
    findings.attrs["verdicts"] = {line["defence"]: line["audit"] for line in rows.attrs["table"]}
    print_audit(Path(output))
    print(f"audit:  {Path(output) / 'audit.html'}")
    return findings


class _CallablePackage(types.ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> "pandas.DataFrame":
        return audit(*arguments, **options)


# Makes `s2snet.audit(...)` call the function above. A function of that name in s2snet/__init__.py would hide the
# package, so that `import s2snet.audit.checks as checks` fails.
sys.modules[__name__].__class__ = _CallablePackage
