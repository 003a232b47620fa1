"""The headline in words: each defence's worst case, and whether it is better than no defence.

Every sentence is computed from the table; none is written for a particular result.
"""

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline_budget
from s2snet.report.formatting import budget_text, in_order, knowledge, percent, title_of
from s2snet.report.palette import UNDEFENDED

BROKEN, NO_GAIN, HOLDS, UNKNOWN = "broken", "no gain", "holds", "unknown"
BROKEN_BELOW = 0.1  # of the clean accuracy
THREATS_NAMED = 2  # in the first sentence
Headlines = dict[tuple[str, str, str, float], dict]  # as scores.headline returns them


def budgets_of(headlines: Headlines) -> list[tuple[str, float]]:
    """Return every (norm, budget) with a worst case, Linf first, then by norm and radius."""
    budgets = {(norm, budget) for _, threat, norm, budget in headlines if threat == WORST_CASE}
    return sorted(budgets, key=lambda pair: (pair[0] != "linf", pair[0], pair[1]))


def state(headlines: Headlines, defence: str, norm: str, budget: float, classes: int) -> str:
    """Return the state of a defence's worst case.

    BROKEN: no better than guessing, or under a tenth of its clean accuracy. NO_GAIN: not above the interval of the
    undefended classifier's worst case. HOLDS: above it. UNKNOWN: no number.
    """
    worst = headlines.get((defence, WORST_CASE, norm, budget))
    if worst is None or worst["accuracy"] is None:
        return UNKNOWN
    clean = headlines.get((defence, CLEAN, "", 0.0))
    clean_accuracy = clean["accuracy"] if clean and clean["accuracy"] is not None else 1.0
    if worst["accuracy"] <= max(1 / classes, BROKEN_BELOW * clean_accuracy):
        return BROKEN
    bare = headlines.get((UNDEFENDED, WORST_CASE, norm, budget))
    if defence != UNDEFENDED and bare and bare["accuracy"] is not None and worst["accuracy"] <= bare["high"]:
        return NO_GAIN
    return HOLDS


def summary(headlines: Headlines, defence: str, classes: int) -> list[tuple[str, str]]:
    """Return [(state, sentence)]: at which budgets the defence is broken, gains nothing or holds."""
    budgets = budgets_of(headlines)
    states = {pair: state(headlines, defence, *pair, classes) for pair in budgets}
    texts = []
    for one, words in ((BROKEN, "Broken"), (NO_GAIN, "No better than undefended"), (UNKNOWN, "No number")):
        affected = [pair for pair in budgets if states[pair] == one]
        if affected:
            everywhere = len(affected) == len(budgets)
            texts.append((one, f"{words} {'at every budget' if everywhere else ranges(affected, budgets)}."))
    if budgets and not texts and defence != UNDEFENDED:
        bound = any(is_bound(headlines[defence, WORST_CASE, *pair]) for pair in budgets)
        limit = ", as far as it was measured" if bound else ""
        texts.append((HOLDS, f"Holds above the undefended classifier at every budget{limit}."))
    return texts


def ranges(affected: list[tuple[str, float]], budgets: list[tuple[str, float]]) -> str:
    """Return 'from L2 1 on' if all larger budgets of a norm are affected, else the list."""
    texts = []
    for norm in dict.fromkeys(norm for norm, _ in affected):
        radii = [budget for n, budget in budgets if n == norm]
        some = [budget for n, budget in affected if n == norm]
        if len(some) > 1 and some == radii[-len(some) :]:
            texts.append(f"from {title_of(norm)}\u00a0{budget_text(some[0], norm)} on")
        else:
            texts.append(f"at {title_of(norm)}\u00a0" + joined([budget_text(budget, norm) for budget in some]))
    return joined(texts)


def joined(texts: list[str]) -> str:
    """Return 'a, b and c'."""
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def accuracy_text(line: dict) -> str:
    """Return '31.4 %', or 'at most 31.4 %' if the line is an upper bound."""
    return ("at most " if is_bound(line) else "") + percent(line["accuracy"])


def is_bound(line: dict) -> bool:
    """Return whether an accuracy is only an upper bound, because a cell is missing from it."""
    return line["status"].startswith("incomplete") and bool(line["accuracy"])


def subject(headlines: Headlines, defences: list[dict], budget: tuple[str, float]) -> dict | None:
    """Return the defence of the first sentence: the purifier that looks best to its mildest attacker."""
    known = [defence for defence in defences if (defence["name"], WORST_CASE, *budget) in headlines]
    purifiers = [defence for defence in known if defence.get("has_purifier")]
    others = [defence for defence in known if defence["name"] != UNDEFENDED]
    return max(purifiers or others or known, key=lambda d: mildest(headlines, d["name"], *budget), default=None)


def mildest(headlines: Headlines, defence: str, norm: str, budget: float) -> float:
    """Return the highest accuracy under any threat, -1 if there is none."""
    shares = [
        line["accuracy"]
        for (name, threat, n, eps), line in headlines.items()
        if (name, n, eps) == (defence, norm, budget) and threat != WORST_CASE and line["accuracy"] is not None
    ]
    return max(shares, default=-1.0)


def sentences(headlines: Headlines, defences: list[dict]) -> list[str]:
    """Return one or two sentences: the subject by what the attacker knows, and the best defence in the worst case."""
    budget = headline_budget(budgets_of(headlines))
    about = subject(headlines, defences, budget) if budget else None
    if about is None:
        return ["Nothing was attacked: there is no worst case to report."]
    norm, eps = budget
    opening = f"At {title_of(norm)}\u00a0{budget_text(eps, norm)}"
    worst = headlines[about["name"], WORST_CASE, *budget]
    if worst["accuracy"] is None:
        return [f"{opening}, nothing was measured: {worst['status']}."]
    texts = [f"{opening}, {about['title']} keeps {joined(by_knowledge(headlines, about['name'], budget, worst))}."]
    ranked = [(headlines.get((defence["name"], WORST_CASE, *budget)), defence) for defence in defences]
    ranked = [(line, defence) for line, defence in ranked if line and line["accuracy"] is not None]
    best_line, best = max(ranked, key=lambda pair: pair[0]["accuracy"])
    if len(ranked) == 1:
        return texts
    if best_line["accuracy"] == 0:
        texts.append("In the worst case nothing compared here keeps a single image.")
    elif best is about:
        texts.append(f"No other of the {len(ranked)} compared here keeps more in its worst case.")
    else:
        texts.append(f"Best in its worst case: {best['title']}, {accuracy_text(best_line)}.")
    return texts


def by_knowledge(headlines: Headlines, defence: str, budget: tuple[str, float], worst: dict) -> list[str]:
    """Return '97.8 % when the attacker does not know it' and so on, for two threats; the worst case if it is lower."""
    threats = {threat for name, threat, *rest in headlines if (name, *rest) == (defence, *budget)}
    lines = {threat: headlines[defence, threat, *budget] for threat in in_order(threats - {WORST_CASE})}
    measured = {threat: line for threat, line in lines.items() if line["accuracy"] is not None}
    named = dict(list(measured.items())[:THREATS_NAMED])
    texts = [f"{accuracy_text(line)} {knowledge(threat)}" for threat, line in named.items()]
    if list(named) == ["gray_box", "white_box"]:
        texts[1] = f"{accuracy_text(named['white_box'])} when the attacker does"
    if not named or min(line["accuracy"] for line in named.values()) > worst["accuracy"]:
        texts.append(f"{accuracy_text(worst)} in the worst case")
    return texts
