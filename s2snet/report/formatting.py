"""Format names, budgets and shares for display. Unknown names are shown with spaces for underscores."""

from collections.abc import Iterable

from s2snet.evaluation.schema import CLEAN, WORST_CASE

TITLES = {
    CLEAN: "no attack",
    WORST_CASE: "worst case",
    "gray_box": "gray box",
    "white_box": "white box",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "apgd": "APGD",
    "apgd_margin": "APGD-margin",
    "apgd_t": "APGD-T",
    "uap": "UAP",
    "mim": "MIM",
    "cw": "C&W",
    "ead": "EAD",
    "fab": "FAB",
    "jsma": "JSMA",
    "ddn": "DDN",
    "fmn": "FMN",
    "spsa": "SPSA",
    "deepfool": "DeepFool",
    "eot": "EOT",
    "identity": "identity (BPDA)",
    "bim": "BIM",
    "lbfgs": "L-BFGS",
    "square": "Square",
    "linf": "L\u221e",
    "l2": "L\u2082",
    "l1": "L\u2081",
    "l0": "L\u2080",
}

# The attacker's knowledge for each threat, as the end of "it keeps 97.8 % ...".
KNOWLEDGE = {
    "gray_box": "when the attacker does not know it",
    "white_box": "when the attacker knows it",
    "transfer": "against images crafted on other models",
    "query": "when the attacker only sees its predictions",
    "universal": "against one perturbation for all images",
    "foreign": "against images supplied from outside",
}

MAX_TENTHS = 32  # largest k with one decimal for which a radius is written as k/255; 0.3 stays 0.3


def title_of(name: str) -> str:
    """Return a readable name."""
    return TITLES.get(name, name.replace("_", " "))


def knowledge(threat: str) -> str:
    """Return the attacker's knowledge as the end of a sentence."""
    return KNOWLEDGE.get(threat, f"under {title_of(threat)}")


def in_order(threats: Iterable[str]) -> list[str]:
    """Return the threats in display order: those in KNOWLEDGE first, in its order, then alphabetically."""
    known = list(KNOWLEDGE)
    return sorted(threats, key=lambda threat: (known.index(threat) if threat in known else len(known), threat))


def budget_text(budget: float | None, norm: str) -> str:
    """Return 8/255 if that is exact, else a plain number; "" for clean lines, "smallest" for unlimited budgets."""
    if not norm:
        return ""
    if budget is None or budget == float("inf"):
        return "smallest"
    levels = budget * 255
    whole, tenths = round(levels), round(levels, 1)
    if norm == "linf" and abs(levels - whole) < 1e-6:
        return f"{whole}/255"
    if norm == "linf" and abs(levels - tenths) < 1e-6 and tenths < MAX_TENTHS:
        return f"{tenths:g}/255"
    return f"{budget:.4g}"


def percent(share: float | None, unit: bool = True) -> str:
    """Return a share in percent with one decimal; only shares of exactly 1 or 0 give 100.0 or 0.0."""
    if share is None:
        return "\u2013"
    text = f"{100 * share:.1f}"
    if text == "100.0" and share < 1:
        text = ">99.9"
    if text == "0.0" and share > 0:
        text = "<0.1"
    return text + ("\u00a0%" if unit else "")


def interval_text(line: dict) -> str:
    """Return the ends of the interval in percent, such as 27.1-36.0."""
    if line["accuracy"] is None:
        return ""
    return f"{percent(line['low'], unit=False)}\u2013{percent(line['high'], unit=False)}"
