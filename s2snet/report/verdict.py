"""The headline in words: what each defence leaves in the worst case, and whether that is anything.

Everything said here is computed from the table; nothing is written for a particular result.
"""

from s2snet.evaluation.schema import CLEAN, USUAL_BUDGET, WORST_CASE
from s2snet.report.formatting import budget_text, in_order, knowledge, percent, title_of
from s2snet.report.palette import UNDEFENDED

BROKEN, NO_GAIN, HOLDS, UNKNOWN = "broken", "no gain", "holds", "unknown"
BROKEN_BELOW = 0.1  # of the clean accuracy
TOLD = 2  # threats in the first sentence
Speaking = dict[tuple[str, str, str, float], dict]  # what scores.headline returns


def budgets_of(speaking: Speaking) -> list[tuple[str, float]]:
    """All (norm, budget), Linf first, then by name and radius."""
    found = {(norm, budget) for _, threat, norm, budget in speaking if threat == WORST_CASE}
    return sorted(found, key=lambda pair: (pair[0] != "linf", pair[0], pair[1]))


def reference(budgets: list[tuple[str, float]]) -> tuple[str, float] | None:
    """The budget of the first sentence: Linf 8/255 where it was run, else the first norm's middle one."""
    if not budgets:
        return None
    for norm, budget in budgets:
        if norm == "linf" and abs(budget - USUAL_BUDGET) < 1e-6:
            return norm, budget
    first = [pair for pair in budgets if pair[0] == budgets[0][0]]
    return first[len(first) // 2]


def state(speaking: Speaking, defence: str, norm: str, budget: float, classes: int) -> str:
    """What a defence's worst case amounts to.

    BROKEN: no better than guessing, or under a tenth of its clean accuracy. NO_GAIN: not above the interval
    of the undefended classifier's worst case. HOLDS: above it. UNKNOWN: no number.
    """
    worst = speaking.get((defence, WORST_CASE, norm, budget))
    if worst is None or worst["accuracy"] is None:
        return UNKNOWN
    clean = speaking.get((defence, CLEAN, "", 0.0))
    clean_accuracy = clean["accuracy"] if clean and clean["accuracy"] is not None else 1.0
    if worst["accuracy"] <= max(1 / classes, BROKEN_BELOW * clean_accuracy):
        return BROKEN
    bare = speaking.get((UNDEFENDED, WORST_CASE, norm, budget))
    if defence != UNDEFENDED and bare and bare["accuracy"] is not None and worst["accuracy"] <= bare["high"]:
        return NO_GAIN
    return HOLDS


def summary(speaking: Speaking, defence: str, classes: int) -> list[tuple[str, str]]:
    """[(state, sentence)] over all budgets: where the defence is broken, gains nothing, or holds."""
    budgets = budgets_of(speaking)
    states = {pair: state(speaking, defence, *pair, classes) for pair in budgets}
    said = []
    for wanted, words in ((BROKEN, "Broken"), (NO_GAIN, "No better than undefended"), (UNKNOWN, "No number")):
        where = [pair for pair in budgets if states[pair] == wanted]
        if where:
            everywhere = len(where) == len(budgets)
            said.append((wanted, f"{words} {'at every budget' if everywhere else ranges(where, budgets)}."))
    if budgets and not said and defence != UNDEFENDED:
        bound = any(is_bound(speaking[defence, WORST_CASE, *pair]) for pair in budgets)
        limit = ", as far as it was measured" if bound else ""
        said.append((HOLDS, f"Holds above the undefended classifier at every budget{limit}."))
    return said


def ranges(where: list[tuple[str, float]], budgets: list[tuple[str, float]]) -> str:
    """'from L2 1 on' where all larger budgets of a norm belong too, else the list."""
    texts = []
    for norm in dict.fromkeys(norm for norm, _ in where):
        radii = [budget for n, budget in budgets if n == norm]
        hit = [budget for n, budget in where if n == norm]
        if len(hit) > 1 and hit == radii[-len(hit) :]:
            texts.append(f"from {title_of(norm)}\u00a0{budget_text(hit[0], norm)} on")
        else:
            texts.append(f"at {title_of(norm)}\u00a0" + joined([budget_text(budget, norm) for budget in hit]))
    return joined(texts)


def joined(texts: list[str]) -> str:
    """a, b and c."""
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def kept(line: dict) -> str:
    """'31.4 %', and 'at most 31.4 %' where something is missing from the line."""
    return ("at most " if is_bound(line) else "") + percent(line["accuracy"])


def is_bound(line: dict) -> bool:
    """Whether an accuracy is only an upper bound: something is missing from it, and it could be lower."""
    return line["status"].startswith("incomplete") and bool(line["accuracy"])


def subject(speaking: Speaking, defences: list[dict], at: tuple[str, float]) -> dict | None:
    """The defence the first sentence is about: the purifier that looks best to its mildest attacker."""
    known = [defence for defence in defences if (defence["name"], WORST_CASE, *at) in speaking]
    purifiers = [defence for defence in known if defence.get("has_purifier")]
    others = [defence for defence in known if defence["name"] != UNDEFENDED]
    return max(purifiers or others or known, key=lambda d: mildest(speaking, d["name"], *at), default=None)


def mildest(speaking: Speaking, defence: str, norm: str, budget: float) -> float:
    """The highest accuracy that any threat leaves; -1 where there is none."""
    shares = [
        line["accuracy"]
        for (name, threat, n, eps), line in speaking.items()
        if (name, n, eps) == (defence, norm, budget) and threat != WORST_CASE and line["accuracy"] is not None
    ]
    return max(shares, default=-1.0)


def sentences(speaking: Speaking, defences: list[dict]) -> list[str]:
    """The verdict in one or two sentences: the subject by what the attacker knows, and who keeps most."""
    at = reference(budgets_of(speaking))
    about = subject(speaking, defences, at) if at else None
    if about is None:
        return ["Nothing was attacked: there is no worst case to report."]
    where = f"At {title_of(at[0])}\u00a0{budget_text(at[1], at[0])}"
    worst = speaking[about["name"], WORST_CASE, *at]
    if worst["accuracy"] is None:
        return [f"{where}, nothing was measured: {worst['status']}."]
    said = [f"{where}, {about['title']} keeps {joined(by_knowledge(speaking, about['name'], at, worst))}."]
    ranked = [(speaking.get((defence["name"], WORST_CASE, *at)), defence) for defence in defences]
    ranked = [(line, defence) for line, defence in ranked if line and line["accuracy"] is not None]
    best_line, best = max(ranked, key=lambda pair: pair[0]["accuracy"])
    if len(ranked) == 1:
        return said
    if best_line["accuracy"] == 0:
        said.append("In the worst case nothing compared here keeps a single image.")
    elif best is about:
        said.append(f"No other of the {len(ranked)} compared here keeps more in its worst case.")
    else:
        said.append(f"Best in its worst case: {best['title']}, {kept(best_line)}.")
    return said


def by_knowledge(speaking: Speaking, defence: str, at: tuple[str, float], worst: dict) -> list[str]:
    """'97.8 % when the attacker does not know it' and so on, for two threats; the worst case where lower."""
    threats = {threat for name, threat, *where in speaking if (name, *where) == (defence, *at)}
    lines = {threat: speaking[defence, threat, *at] for threat in in_order(threats - {WORST_CASE})}
    measured = {threat: line for threat, line in lines.items() if line["accuracy"] is not None}
    named = dict(list(measured.items())[:TOLD])
    told = [f"{kept(line)} {knowledge(threat)}" for threat, line in named.items()]
    if list(named) == ["gray_box", "white_box"]:
        told[1] = f"{kept(named['white_box'])} when the attacker does"
    if not named or min(line["accuracy"] for line in named.values()) > worst["accuracy"]:
        told.append(f"{kept(worst)} in the worst case")
    return told
