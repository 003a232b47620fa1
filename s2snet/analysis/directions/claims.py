"""The claims of study=directions, from its rows. Intervals are of 95 %."""

from typing import Any

import numpy as np

from s2snet.analysis.claim import FAILS, HOLDS, UNDECIDED, Claim, above, below, exceeds
from s2snet.analysis.intervals import Estimate, mean, median, share, spearman

PAPER = "Jetley, Lord, Torr, arXiv 1807.04200"
ZERO = 1e-4  # a gradient that turns by less than this share of its length does so by rounding
ONE = 0.1  # of the curvature: with a larger residual the directions are no eigenvectors
KINKS = (
    "the network's gradient jumps at kinks within the step, so that the difference along v is not linear in v; "
    "directions are sorted by c. study.directions.smoothing and more samples help"
)
Rows = list[dict[str, Any]]


def curved(turns: list[float]) -> Claim:
    """Return the claim that there is curvature at all, toward every class; `turns` are those of MeanHessian.turn."""
    least, most = (100 * turn for turn in (min(turns), max(turns)))
    evidence = f"over one step in a random direction the gradient turns by {least:.2g} to {most:.2g} % of its length"
    zero = min(turns) < ZERO
    if zero:
        evidence = f"the Hessian is zero: {evidence}, which is rounding; there are no second-order directions"
    return Claim(
        "curved",
        "The classifier's scores are curved at the size of the step that measures them.",
        "ours",
        f"{evidence} (n = {len(turns)} classes)",
        FAILS if zero else HOLDS,
    )


def one_matrix(rows: Rows) -> Claim:
    """Return the claim that the directions are eigenvectors, from the table `pairs`."""
    residual = median([row["residual"] / abs(row["curvature"]) for row in rows])
    stretch = [row["eigenvalues"] / row["curvature"] for row in rows]
    verdict = below(residual, ONE)
    return Claim(
        "one_matrix",
        "The directions are eigenvectors: at this step the differences of gradients act as one symmetric matrix.",
        "ours; the paper takes it for granted",
        f"median of |Hv - cv| / |c|: {residual.text()}; Lanczos' eigenvalue is {np.median(stretch):.2f} times the "
        f"curvature c along its vector. Holds below {ONE:g}",
        verdict,
        "" if verdict == HOLDS else KINKS,
    )


def along_directions(rows: Rows) -> list[Claim]:
    """Return the claims about scores and labels along directions, from the table `traces`."""
    ends = [row for row in rows if abs(row["s"]) > 0.99 * max(row["s"] for row in rows)]
    sides: dict[tuple, Rows] = {}
    for row in ends:
        sides.setdefault((row["kind"], row["class"], row["rank"]), []).append(row)
    reach = f"at the ends, {255 * max(row['s'] for row in rows):.0f} gray levels of 255 RMS"

    def per_direction(kinds: tuple[str, ...], value) -> Estimate:
        return mean([np.mean([value(row) for row in both]) for key, both in sides.items() if key[0] in kinds])

    signed, control = ("first", "last"), ("random",)
    moves = {kinds: per_direction(kinds, lambda row: row["move"]) for kinds in (signed, ("least",), control)}
    ratio = Estimate(
        moves["least",].value / moves[signed].value,
        moves["least",].low / moves[signed].high,
        moves["least",].high / moves[signed].low,
        moves["least",].n,
    )
    top = {kinds: per_direction(kinds, lambda row: row["top_share"]) for kinds in (signed, ("last",), control)}
    same = [both[0]["top_class"] == both[1]["top_class"] for key, both in sides.items() if key[0] in signed]
    by_chance = [both[0]["top_class"] == both[1]["top_class"] for key, both in sides.items() if key[0] in control]
    first = [both for key, both in sides.items() if key[0] == "first"]
    named = share(sum(row["top_class"] == row["class"] for both in first for row in both), 2 * len(first))
    count = len({row["class"] for row in rows})
    inner = [row for row in rows if row["s"] > 0 and row["s"] < 0.3 * max(each["s"] for each in rows)]
    signs = [(row["bend"] > 0) == (row["kind"] == "first") for row in inner if row["kind"] in signed]
    agree = share(sum(signs), len(signs))
    return [
        Claim(
            "signs",
            "Along positive directions the class's score is convex, along negative ones concave.",
            f"{PAPER}, code's README",
            f"the mean score of test images has this curvature along {agree.percent()} of the directions",
            above(agree, 0.5),
        ),
        Claim(
            "moves",
            "Along directions of large curvature the class's score moves more than along those of small curvature.",
            PAPER,
            f"mean |change| {reach}: {moves[signed].text()} against {moves['least',].text()}; "
            f"random {moves[control].text()}",
            exceeds(moves[signed], moves["least",]),
        ),
        Claim(
            "nothing",
            "Along directions of almost no curvature the score hardly changes (by a tenth of the former, or less).",
            f"{PAPER}; the tenth is ours",
            f"least over most: {ratio.text()}",
            below(ratio, 0.1),
        ),
        Claim(
            "identity",
            "Directions are tied to classes: far along one more images share a label than along a random one.",
            f"{PAPER}; the aggregation is ours",
            f"share of the commonest label {reach}: {top[signed].text()} against {top[control].text()}",
            exceeds(top[signed], top[control]),
        ),
        Claim(
            "own_class",
            "That label is, along a direction of convex score, the class that the direction was computed for.",
            f"{PAPER}, code's README; the aggregation is ours",
            f"{named.percent()} of the ends; by chance {100 / count:.0f} %",
            above(named, 1 / count),
        ),
        Claim(
            "symmetric",
            "Both ends of a direction have the same commonest label, more often than those of random directions.",
            f"{PAPER}; the aggregation is ours",
            f"{share(sum(same), len(same)).percent()} against {share(sum(by_chance), len(by_chance)).percent()}",
            exceeds(share(sum(same), len(same)), share(sum(by_chance), len(by_chance))),
        ),
    ]  # fmt: skip


def constant_steps(rows: Rows) -> list[Claim]:
    """Return the claim that directions are universal perturbations, from the table `constants`."""

    def rate(*kinds: str) -> Estimate:
        return mean([row["changed"] for row in rows if row["kind"] in kinds])

    ours, control, real = rate("first", "last"), rate("random"), rate("universal")
    return [
        Claim(
            "universal_rate",
            "Directions of large curvature are universal perturbations: a constant step along them changes more labels "
            "than along random ones.",
            PAPER,
            f"labels changed: {ours.text(100, unit=' %')} against {control.text(100, unit=' %')}; "
            f"computed universal perturbations of the same length {real.text(100, unit=' %')}",
            exceeds(ours, control),
        )
    ]


def components(rows: Rows, pairs: int) -> list[Claim]:
    """Return the claims about where perturbations lie, from the table `components`.

    They are about the largest subspaces that `pairs` directions of each class span.
    """
    claims = []
    texts = {
        "universal": "Universal perturbations lie in the span of these directions more than in a random subspace.",
        "attack": "So do the perturbations of an attack that is free to go anywhere.",
    }
    largest = _most(rows, pairs)
    for of, text in texts.items():
        shares = {
            row["basis"]: Estimate(row["share"], row["low"], row["high"], row["n"])
            for row in rows
            if row["of"] == of and row["per_class"] == largest
        }
        if not shares:
            continue
        d = next(row["dimensions"] for row in rows if row["per_class"] == largest and row["basis"] == "most")
        least = f"; least {shares['least'].text()}" if "least" in shares else ""
        claims.append(
            Claim(
                f"{of}_within",
                text,
                PAPER,
                f"share of length in {d} dimensions: {shares['most'].text()} against {shares['random'].text()}{least}",
                exceeds(shares["most"], shares["random"]),
            )
        )
    return claims


def in_subspaces(rows: Rows, pairs: int, clean: Estimate, cheap: float, budget: float) -> list[Claim]:
    """Return the claims about accuracy and attacks in subspaces, from the table `subspaces`.

    An attack is cheap up to the length `cheap`, `budget` times the median of the free perturbations. The span of large
    curvature is that of up to `pairs` directions of each class.
    """
    at = {(row["basis"], row["per_class"]): row for row in rows}
    largest = _most(rows, pairs)

    def accuracy(basis: str, count: int = largest) -> Estimate:
        return share(at[basis, count]["test_right"], at[basis, count]["test_n"])

    def fooled(basis: str, count: int = largest) -> Estimate:
        return share(at[basis, count]["cheap"], at[basis, count]["attacked"])

    d = at["most", largest]["dimensions"]
    near = f"within an l2 length of {cheap:.3g}, {budget:g} times the free perturbations' median"
    claims = [
        Claim(
            "carry",
            f"{d} directions of large curvature carry the accuracy: more than as many random ones.",
            PAPER,
            f"{accuracy('most').percent()} against {accuracy('random').percent()}; whole images {clean.percent()}",
            exceeds(accuracy("most"), accuracy("random")),
        ),
        Claim(
            "cheap",
            f"And they make attacks cheap: inside their span more images are fooled {near}, than inside a random one.",
            PAPER,
            f"{fooled('most').percent()} against {fooled('random').percent()}",
            exceeds(fooled("most"), fooled("random")),
        ),
    ]
    if ("least", largest) in at:
        names = {"carry": "accuracy", "cheap": "cheap attacks"}
        for name, value in (("carry", accuracy), ("cheap", fooled)):
            claims.append(
                Claim(
                    f"least_{name}",
                    f"Directions of small curvature give less {names[name]} than those of large curvature.",
                    PAPER,
                    f"{value('least').percent()} against {value('most').percent()}",
                    exceeds(value("most"), value("least")),
                )
            )

    first = max((count for basis, count in at if basis == "attacks" and ("random", count) in at), default=None)
    if first is not None:
        d = at["attacks", first]["dimensions"]
        for name, gain, value in (("carry", "more accuracy", accuracy), ("cheap", "cheaper attacks", fooled)):
            claims.append(
                Claim(
                    f"first_order_{name}",
                    f"{d} first-order directions, those of free perturbations, give {gain} than as many random ones.",
                    PAPER,
                    f"{value('attacks', first).percent()} against {value('random', first).percent()}",
                    exceeds(value("attacks", first), value("random", first)),
                )
            )
    whole = max(row["per_class"] for row in rows)
    if whole > largest and ("least", whole) in at:
        claims.append(
            Claim(
                "without",
                f"{at['most', whole]['dimensions']} dimensions without those of largest curvature carry less accuracy "
                "than as many that begin with them.",
                f"{PAPER}; ours is the number",
                f"{accuracy('least', whole).percent()} against {accuracy('most', whole).percent()}",
                exceeds(accuracy("most", whole), accuracy("least", whole)),
            )
        )

    def coupling(basis: str) -> Estimate:
        own = [row for row in rows if row["basis"] == basis]
        return spearman([row["test_accuracy"] for row in own], [row["cheap"] for row in own])

    counts = sorted({row["per_class"] for row in rows})
    levels = [[row for row in rows if row["per_class"] == count] for count in counts]
    ranks = [zip(_ranks(level, "test_accuracy"), _ranks(level, "cheap"), strict=True) for level in levels]
    across = spearman(*zip(*(pair for level in ranks for pair in level), strict=True))
    most, random = coupling("most"), coupling("random")
    return [
        *claims,
        Claim(
            "coupled",
            "Accuracy and cheap attacks increase together with the dimensions, from most to least curvature.",
            f"{PAPER}; the rank correlation is ours",
            f"rank correlation {most.text()}",
            UNDECIDED if np.isnan(most.value) else above(most, 0),
        ),
        Claim(
            "coupled_control",
            "This is more than any growing subspace shows: in random subspaces they rise less.",
            "ours",
            f"rank correlation {most.text()} against {random.text()} in random subspaces",
            UNDECIDED if np.isnan(most.value + random.value) else exceeds(most, random),
        ),
        Claim(
            "coupled_across",
            "At equal dimensions the subspaces that keep more accuracy are those in which attacks are cheaper.",
            f"{PAPER}; ours is the rank correlation within each number of dimensions",
            f"{across.text()}: {len({row['basis'] for row in rows})} kinds of subspace at {len(counts)} dimensions",
            UNDECIDED if np.isnan(across.value) else above(across, 0),
        ),
    ]


def _most(rows: Rows, pairs: int) -> int:
    """Return the largest number of directions per class that is at most `pairs`, or else the smallest."""
    counts = {row["per_class"] for row in rows}
    return max((count for count in counts if count <= pairs), default=min(counts))


def _ranks(rows: Rows, column: str) -> np.ndarray:
    """Return each row's rank in a column, centred; ties have their mean rank."""
    values = np.array([row[column] for row in rows], dtype=float)
    ranks = [(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values]
    return np.array(ranks) - (len(rows) - 1) / 2
