"""The claims of study=relations, and the rule that decides each of them. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s2snet.analysis import intervals
from s2snet.analysis.claim import FAILS, HOLDS, UNDECIDED, Claim, above, all_of
from s2snet.analysis.relations import rankings
from s2snet.analysis.relations.rankings import OWN_BUDGET, Leader, Tournament

DEFENCE, SISTER = "arXiv 1803.07994", "arXiv 1803.08337"
THE_PAPERS = {"alexnet", "vgg16", "resnet50", "inception_v3"}
SURE = 0.95  # of the resamples

Leaders = Mapping[str, Leader]  # by level, or OWN_BUDGET


@dataclass(frozen=True)
class Setting:
    """The data and the networks that were compared."""

    data: str
    kinds: tuple[str, ...]  # architectures, in the order of the names
    names: tuple[str, ...]

    def because(self, verdict: str) -> str:
        """Return what is known to differ from the paper, for a claim that fails."""
        if verdict != FAILS:
            return ""
        if set(self.kinds) >= THE_PAPERS:
            return "how the paper measured it is not known; the definition is ours"
        return f"other networks and S2SNets than the paper's four on ImageNet: {len(self.kinds)} on {self.data}"


def overall(leaders: Leaders) -> str | None:
    """Return the network that leads clearly at more than half of the places, while no other leads clearly at any."""
    clear = [leader.name for leader in leaders.values() if leader.clear]
    return clear[0] if len(set(clear)) == 1 and 2 * len(clear) > len(leaders) else None


def contradicted(leaders: Leaders) -> bool:
    """Return whether two different networks lead clearly at two places."""
    return len({leader.name for leader in leaders.values() if leader.clear}) > 1


def _evidence(leaders: Leaders) -> str:
    """Return a sentence with the leader at each place."""
    parts = []
    for place, leader in leaders.items():
        if place == OWN_BUDGET:
            value, lead = leader.value.text(), leader.lead.text()
            parts.append(
                f"by its own budget for half of the images {leader.name} {value}, {lead} below {leader.second}"
            )
        else:
            value, lead = leader.value.percent(), _points(leader.lead)
            parts.append(f"at {place} {leader.name} {value}, {lead} ahead of {leader.second}")
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def leads(name: str, sentence: str, leaders: Leaders) -> Claim:
    """Return a claim that holds if one network leads, and fails if two do at different places."""
    verdict = HOLDS if overall(leaders) else FAILS if contradicted(leaders) else UNDECIDED
    return Claim(name, sentence, "ours", _evidence(leaders), verdict)


def leads_by_name(name: str, sentence: str, leaders: Leaders, network: str, setting: Setting) -> Claim:
    """Return a claim that holds if that network leads, and fails if another one does, or several do."""
    leading = overall(leaders)
    verdict = HOLDS if leading == network else FAILS if leading or contradicted(leaders) else UNDECIDED
    return Claim(name, sentence, DEFENCE, _evidence(leaders), verdict, setting.because(verdict))


def transfer(leaders: Mapping[str, Leaders], fooled: Mapping[float, np.ndarray], setting: Setting) -> list[Claim]:
    """Return the claims about which network is easiest to fool, whose perturbations transfer best, and a control."""
    easiest, furthest = leaders["easiest"], leaders["furthest"]
    claims = [
        own_examples_fool_most(fooled, setting.names),
        leads(
            "easiest",
            "One classifier is the easiest to fool, at each level of normalised L2 by the others' examples and by the "
            "smallest budget for half of the images by its own; it is distinguishable from the second.",
            easiest,
        ),
        leads(
            "furthest",
            "One classifier's perturbations transfer best at each level, distinguishable from the second's.",
            furthest,
        ),
    ]
    for kind, name, sentence, places in (
        ("vgg16", "vgg16_easiest", "VGG16 is the easiest to fool.", easiest),
        ("resnet50", "resnet50_furthest", "ResNet50's perturbations are the most transferable.", furthest),
    ):
        if kind in setting.kinds:
            named = setting.names[setting.kinds.index(kind)]
            claims.append(leads_by_name(name, sentence, places, named, setting))
    return [*claims, two_are_different(easiest, furthest, setting)]


def two_are_different(easiest: Leaders, furthest: Leaders, setting: Setting) -> Claim:
    """Return a claim that holds if both questions have a leader and these differ, and fails if they are the same."""
    weak, strong = overall(easiest), overall(furthest)
    verdict = UNDECIDED if weak is None or strong is None else FAILS if weak == strong else HOLDS
    nobody = "nobody clearly"
    return Claim(
        "different",
        "Who is easiest to fool is not who fools the others best (in the paper VGG16 and ResNet50).",
        DEFENCE,
        f"Easiest to fool: {weak or nobody}. Perturbations that transfer best: {strong or nobody}.",
        verdict,
        setting.because(verdict),
    )


def own_examples_fool_most(fooled: Mapping[float, np.ndarray], names: Sequence[str]) -> Claim:
    """Return a control of the attack, which fails if another's examples clearly fool a judge more than its own."""
    gaps = {
        (level, names[j], names[i]): intervals.mean(matrix[j, j].astype(float) - matrix[i, j])
        for level, matrix in fooled.items()
        for j in range(len(names))
        for i in range(len(names))
        if i != j
    }
    level, judge, source = min(gaps, key=lambda key: gaps[key].value)
    least = gaps[level, judge, source]
    against = [key for key, gap in gaps.items() if gap.high < 0]
    verdict = FAILS if against else HOLDS if least.value >= 0 else UNDECIDED
    return Claim(
        "own_first",
        "No classifier is fooled more by another's examples than by its own: a control of the attack.",
        "ours",
        f"{len(against)} of {len(gaps)} pairs and levels contradict it. The smallest gap, for {judge} at {level:g}: "
        f"{least.percent()} more of its own examples fool it than of {source}'s.",
        verdict,
    )


def defended(
    leaders: Mapping[str, Leaders],
    bare: Mapping[float, np.ndarray],
    purified: Mapping[float, np.ndarray],
    setting: Setting,
) -> list[Claim]:
    """Return the claims about an S2SNet before each judge, over images that are right with and without it."""
    n = next(iter(bare.values())).shape[2]
    if "easiest_behind" not in leaders:
        too_few = f"Only {n} images are right with and without all S2SNets."
        return [Claim("defended", _DEFENDED, "ours", too_few, UNDECIDED)]
    others = ~np.eye(len(setting.names), dtype=bool)
    parts, drops = [], []
    for level in bare:
        own = intervals.mean(np.einsum("iin->in", bare[level].astype(float) - purified[level]).mean(axis=0))
        across = intervals.mean((bare[level].astype(float) - purified[level])[others].mean(axis=0))
        before = [
            100 * matrix[level].mean(axis=2)[mask].mean() for matrix in (bare, purified) for mask in (~others, others)
        ]
        parts.append(
            f"at {level:g} own examples {before[0]:.1f} % to {before[2]:.1f} %, {_points(own)} fewer; the others' "
            f"{before[1]:.1f} % to {before[3]:.1f} %, {_points(across)} fewer"
        )
        drops += [own, across]
    verdict = all_of(*map(above, drops))
    evidence = "; ".join(parts) + f" (n = {n})."
    return [
        Claim("defended", _DEFENDED, "ours", evidence[0].upper() + evidence[1:], verdict),
        leads(
            "easiest_behind",
            "Also behind their S2SNets one is the easiest to fool by the others' examples.",
            leaders["easiest_behind"],
        ),
        leads(
            "furthest_behind",
            "Also against judges behind their S2SNets one classifier's perturbations transfer best.",
            leaders["furthest_behind"],
        ),
    ]


_DEFENDED = (
    "An S2SNet in front of the judge weakens examples crafted without it, against its own classifier (gray box) and "
    "against the others, at each level."
)


def _points(drop: intervals.Estimate) -> str:
    return f"{100 * drop.value:.1f} points ({100 * drop.low:.1f} to {100 * drop.high:.1f})"


def orders(
    names: Sequence[str],
    correct: np.ndarray,
    own: np.ndarray,
    sizes: np.ndarray,
    information: np.ndarray,
    tournaments: Mapping[str, Tournament],
    setting: Setting,
    seed: int = 0,
) -> list[Claim]:
    """Return the claims about whether the cross matrix [signal, reader, n] is an order, and what agrees with it."""
    plain = tournaments["plain"]
    accuracy = rankings.along(plain.resamples, rankings.resampled(own.astype(float), seed))
    size = rankings.along(plain.resamples, sizes.astype(float))
    follows = {"accuracy": float((accuracy != 0).mean()), "size": float((size != 0).mean())}
    neither = _sure(1 - max(follows.values())) if plain.share >= SURE else UNDECIDED
    nmi = rankings.along(plain.resamples, rankings.resampled(information, seed))
    agrees = float((nmi != 0).mean())
    verdict = _sure(agrees) if plain.share >= SURE else UNDECIDED
    no_order = "" if plain.share >= SURE else " There is no certain order to compare with."
    means = sorted(zip(names, information, strict=True), key=lambda pair: -pair[1].mean())
    shares = ", ".join(f"{name} {intervals.mean(row).text()}" for name, row in means)
    return [
        own_signal_read_best(correct, names),
        is_order("order", _ORDER, plain, correct.shape[2], setting),
        is_order("order_relative", _RELATIVE, tournaments["relative"], correct.shape[2], setting),
        beyond_chance(plain, len(names)),
        Claim(
            "neither",
            "The order follows neither accuracy nor size.",
            SISTER,
            f"It is that of the accuracies, or its reverse, in {100 * follows['accuracy']:.1f} % and that of the sizes "
            f"in {100 * follows['size']:.1f} % of {len(plain.resamples)} resamples (n = {correct.shape[2]}).{no_order}",
            neither,
            setting.because(neither),
        ),
        Claim(
            "information",
            "The mutual information between an image and its outputs of the S2SNets puts them in the same order.",
            SISTER,
            f"{shares}. The order of these, or its reverse, is the cross matrix's in {100 * agrees:.1f} % of "
            f"{len(plain.resamples)} resamples.{no_order}",
            verdict,
            setting.because(verdict),
        ),
    ]


_ORDER = (
    "Reading each other's signals puts the classifiers in a total order: of every two, one reads the other's S2SNet "
    "better than it is read, and no three form a cycle."
)
_RELATIVE = (
    "It is an order too if a reader's accuracy is measured relative to that on its own S2SNet, so that a classifier "
    "does not come first for being accurate."
)


def is_order(name: str, sentence: str, tournament: Tournament, n: int, setting: Setting) -> Claim:
    """Return a claim that holds if 95 % of the bootstrap samples are total orders, and fails if at most 5 % are."""
    verdict = _sure(tournament.share)
    count = len(setting.names)
    return Claim(
        name,
        sentence,
        SISTER if name == "order" else "ours",
        f"{tournament.text}; {tournament.triads:g} circular triads, Kendall's coefficient of consistence "
        f"{tournament.consistence:.2f} (n = {n}). {100 * tournament.share:.1f} % of {len(tournament.resamples)} "
        f"resamples are total orders; {100 * tournament.chance:.1f} % of all tournaments of {count} have no more "
        "circular triads.",
        verdict,
        setting.because(verdict) if name == "order" else "",
    )


def beyond_chance(tournament: Tournament, count: int) -> Claim:
    """Return a claim that holds if in 95 % of the samples at most 5 % of random tournaments are as transitive.

    It fails if half of them are as transitive as the tournament itself although a more transitive one is possible.
    """
    drawn, often = np.unique(tournament.resamples, axis=0, return_counts=True)
    rare = np.array([rankings.chance(won) <= 1 - SURE for won in drawn])
    unlikely = float(often[rare].sum() / often.sum())
    least = rankings.by_chance(count)[0.0]
    verdict = HOLDS if unlikely >= SURE else FAILS if tournament.chance >= 0.5 and tournament.triads > 0 else UNDECIDED
    small = f" An order of {count} is too likely by chance for this test." if least > 1 - SURE else ""
    return Claim(
        "beyond_chance",
        "Reading each other's signals is more transitive than a tournament with random outcomes.",
        "ours",
        f"{100 * tournament.chance:.1f} % of all tournaments of {count} have as few circular triads, "
        f"{100 * least:.1f} % have none; in {100 * unlikely:.1f} % of the resamples at most 5 % have as few.{small}",
        verdict,
    )


def _sure(share: float) -> str:
    """Return the verdict of a share of bootstrap samples."""
    return HOLDS if share >= SURE else FAILS if share <= 1 - SURE else UNDECIDED


def own_signal_read_best(correct: np.ndarray, names: Sequence[str]) -> Claim:
    """Return a claim that holds if every reader is clearly better on its own signal, and fails if one is worse."""
    gaps = {
        (names[j], names[i]): intervals.mean(correct[j, j].astype(float) - correct[i, j])
        for j in range(len(names))
        for i in range(len(names))
        if i != j
    }
    clear = sum(gap.low > 0 for gap in gaps.values())
    against = [key for key, gap in gaps.items() if gap.high < 0]
    reader, signal = min(gaps, key=lambda key: gaps[key].value)
    least = gaps[reader, signal]
    verdict = FAILS if against else HOLDS if clear == len(gaps) else UNDECIDED
    return Claim(
        "own_signal",
        "Each classifier reads its own S2SNet better than any other's: the decoder is specific to its classifier.",
        "ours",
        f"Clearly so for {clear} of {len(gaps)} pairs, clearly not for {len(against)}. The smallest gap: {reader} "
        f"reads its own {_points(least)} better than {signal}'s (n = {least.n}).",
        verdict,
    )
