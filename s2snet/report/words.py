"""Names, budgets and shares as the page writes them. An unknown name gets its own words as a title."""

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

# What an attacker of each threat has, as the end of "it keeps 97.8 % ...".
KNOWLEDGE = {
    "gray_box": "when the attacker does not know it",
    "white_box": "when the attacker knows it",
    "transfer": "against images made on other models",
    "query": "when the attacker only sees its answers",
    "universal": "against one perturbation for all images",
    "foreign": "against images from elsewhere",
}

LARGEST_TENTH = 32  # up to here a radius of k/255 is written so for a k with one decimal; 0.3 stays 0.3


def title_of(name: str) -> str:
    """A readable name."""
    return TITLES.get(name, name.replace("_", " "))


def knowledge(threat: str) -> str:
    """What the attacker has, as the end of a sentence."""
    return KNOWLEDGE.get(threat, f"under {title_of(threat)}")


def in_order(threats: Iterable[str]) -> list[str]:
    """Threats as they are told: those with words of their own first, gray box and white box at the head."""
    known = list(KNOWLEDGE)
    return sorted(threats, key=lambda threat: (known.index(threat) if threat in known else len(known), threat))


def budget_text(budget: float | None, norm: str) -> str:
    """8/255 where that is exact, a plain number elsewhere; nothing for the clean line, "smallest" without a limit."""
    if not norm:
        return ""
    if budget is None or budget == float("inf"):
        return "smallest"
    levels = budget * 255
    whole, tenths = round(levels), round(levels, 1)
    if norm == "linf" and abs(levels - whole) < 1e-6:
        return f"{whole}/255"
    if norm == "linf" and abs(levels - tenths) < 1e-6 and tenths < LARGEST_TENTH:
        return f"{tenths:g}/255"
    return f"{budget:.4g}"


def percent(share: float | None, unit: bool = True) -> str:
    """97.8 %, with one decimal, and never 100.0 or 0.0 for a share that is neither."""
    if share is None:
        return "\u2013"
    text = f"{100 * share:.1f}"
    if text == "100.0" and share < 1:
        text = ">99.9"
    if text == "0.0" and share > 0:
        text = "<0.1"
    return text + ("\u00a0%" if unit else "")


def interval_text(line: dict) -> str:
    """27.1-36.0, the ends of the interval in percent."""
    if line["accuracy"] is None:
        return ""
    return f"{percent(line['low'], unit=False)}\u2013{percent(line['high'], unit=False)}"
