"""The claims of study=regions, each decided by whether a 95 % interval lies above or below its bound.

Imports no torch: values of images are arrays [n], of correctness (0 or 1), means over draws, shares or logits.
"""

from typing import NamedTuple

import numpy as np

from s2snet.analysis.claim import FAILS, HOLDS, Claim, above
from s2snet.analysis.intervals import Estimate, difference, per_image

PAPER = "arXiv 2011.10794, abstract; measured by our definitions"
OURS = "ours"
HOW = {"static": "one mask for all images", "per_class": "a mask per class", "per_input": "a mask found in each image"}
REMOVED = "the classifier lacks the removed pixels too, and the attack moves to the others"
MASKED = "the choice of a mask has no gradient, so the exact gradient is masked and only the worst case counts"


class Overlap(NamedTuple):
    """The agreement of maps, per image."""

    overlaps: dict[tuple[str, str, float, str], np.ndarray]  # (map, map, q, control): IoU
    correlations: dict[tuple[str, str, str], np.ndarray]  # (map, map, control): Spearman
    energies: dict[tuple[str, float, str, str], tuple[np.ndarray, np.ndarray]]  # (map, q, part, attack): share, area


class Neutralised(NamedTuple):
    """The classifier's predictions with parts removed, per image."""

    plain: dict[str, np.ndarray]  # image kind: correct with all pixels
    right: dict[tuple[str, str, float, str, str], np.ndarray]  # (mode, fill, q, part, image kind): correct
    margins: dict[tuple[str, str, float, str, str], np.ndarray]  # the same: margin in logits


Attacked = dict[tuple[str, str, float], dict[str, np.ndarray]]  # (mode, part, q), attacker: correct


def exactness(masked: Estimate) -> str:
    """Return HOLDS if no image falls to other attackers alone, FAILS if the interval of their share is above 0."""
    return HOLDS if masked.value == 0 else above(masked).replace(HOLDS, FAILS)


def all_claims(
    eps: float,
    q: float,
    importance: str,
    attacks: list[str],
    fill: str,
    overlap: Overlap,
    neutralised: Neutralised,
    attacked: Attacked,
) -> list[Claim]:
    """Return all claims; `eps` is the L2 radius of the attacks on defences."""
    claims = co_location(overlap, q, importance, attacks)
    for mode in ("static", "per_input"):
        claims += neutralising(neutralised, eps, q, fill, mode)
    claims += [adaptive(attacked, eps, q, mode) for mode in HOW]
    return [*claims, *decisive(attacked, q)]


def co_location(values: Overlap, q: float, importance: str, attacks: list[str]) -> list[Claim]:
    """Return the claims about where the classifier looks and where attacks go."""
    attack, controls = attacks[0], ("", "random", "other image")
    own, random, others = (values.overlaps[importance, "oracle", q, control] for control in controls)
    chance, specific = difference(own, random), difference(own, others)
    rank, alike = (values.correlations[importance, "oracle", control] for control in ("", "other image"))
    agnostic, control = (values.correlations["agnostic", "oracle", of] for of in ("", "other image"))
    spread = difference(agnostic, control)
    share, area = values.energies["agnostic", q, "V", attack]
    looked = values.energies["agnostic", q, "B", attack][0] + values.energies["agnostic", q, "I", attack][0]
    beyond = difference(share, area)
    return [
        Claim(
            "co_location",
            "Attacks alter the pixels that the classifier looks at more than by chance.",
            PAPER,
            f"IoU of the two regions ({q:g} of the pixels each; {importance}; {', '.join(attacks)}) "
            f"{_two_digits(per_image(own))}, minus that with random masks of equal area {_two_digits(chance)}; "
            f"Spearman {_two_digits(per_image(rank))}",
            above(chance),
        ),
        Claim(
            "co_location_is_the_images_own",
            "That overlap is the image's own, not that of any two images.",
            OURS,
            f"IoU with other images' region of attack {_two_digits(per_image(others))}, own minus that "
            f"{_two_digits(specific)}; Spearman with them {_two_digits(per_image(alike))}",
            above(specific),
        ),
        Claim(
            "agnostic_stands_for_oracle",
            "The attack map that runs no attack finds where the image's attacks go.",
            OURS,
            f"Spearman with the oracle {_two_digits(per_image(agnostic))}, minus that with other images' "
            f"{_two_digits(spread)}",
            above(spread),
        ),
        Claim(
            "vulnerable_and_unimportant",
            "There is a region that attacks favour and the classifier does not look at.",
            PAPER,
            f"V, found without an attack, is {per_image(area).percent()} of the pixels and holds "
            f"{per_image(share).percent()} of the squared perturbation of {attack}, difference "
            f"{beyond.percent()}; the region of importance holds {per_image(looked).percent()}",
            above(beyond),
        ),
    ]


def neutralising(values: Neutralised, eps: float, q: float, fill: str, mode: str) -> list[Claim]:
    """Return the claims about removing V, for an attack that does not know of it."""
    plain = values.plain
    clean = {part: values.right[mode, fill, q, part, "clean"] for part in ("V", "I")}
    gray = {part: values.right[mode, fill, q, part, "gray_box"] for part in ("V", "random", "shifted")}
    margin = {part: values.margins[mode, fill, q, part, "clean"] for part in ("V", "I", "random")}
    harm, spared = difference(margin["V"], margin["I"]), difference(margin["V"], margin["random"])
    gained, better = difference(gray["V"], plain["gray_box"]), difference(gray["V"], gray["random"])
    return [
        Claim(
            f"unimportant_{mode}",
            f"V is unimportant for classification: removing it ({HOW[mode]}) costs less than removing I.",
            PAPER,
            f"margin in logits without V minus that without I {_two_digits(harm)}, minus that without random pixels of "
            f"V's area {_two_digits(spared)}; clean accuracy {per_image(plain['clean']).percent()} with all pixels, "
            f"without V {per_image(clean['V']).percent()}, without I {per_image(clean['I']).percent()}",
            above(harm),
        ),
        Claim(
            f"gray_box_{mode}",
            f"Neutralising V ({HOW[mode]}) helps against an attack that does not know of it.",
            PAPER,
            f"gray box accuracy at L2 {eps:g}: {per_image(plain['gray_box']).percent()} with all pixels, "
            f"{per_image(gray['V']).percent()} without V, difference {gained.percent()}",
            above(gained),
        ),
        Claim(
            f"better_than_random_{mode}",
            f"V is the cause ({HOW[mode]}): removing as many random pixels helps less.",
            OURS,
            f"gray box accuracy without V minus that without random pixels {better.percent()}; without random pixels "
            f"{per_image(gray['random']).percent()}, without V moved elsewhere {per_image(gray['shifted']).percent()}",
            above(better),
        ),
    ]


def adaptive(values: Attacked, eps: float, q: float, mode: str) -> Claim:
    """Return the claim that removing V helps against an attacker who knows of it."""
    bare = values["undefended", "nothing", 0.0]["worst_case"]
    right = values[mode, "V", q]
    gained = difference(right["worst_case"], bare)
    each = ", ".join(
        f"{attacker.replace('_', ' ')} {100 * correct.mean():.1f} %"
        for attacker, correct in right.items()
        if attacker != "worst_case"
    )
    return Claim(
        f"adaptive_{mode}",
        f"Neutralising V ({HOW[mode]}) still helps if the attacker knows of it.",
        OURS,
        f"worst case at L2 {eps:g} {per_image(right['worst_case']).percent()}, undefended {per_image(bare).percent()}, "
        f"difference {gained.percent()}. By attacker: {each}",
        above(gained),
        "" if above(gained) == HOLDS else REMOVED,
    )


def decisive(values: Attacked, q: float) -> list[Claim]:
    """Return the claims that explain it: the confined attacker, V against its area, masked gradients."""
    bare = values["undefended", "nothing", 0.0]["worst_case"]
    static, random = (values["static", part, q] for part in ("V", "random"))
    left = difference(static["confined"], bare)
    better = difference(static["worst_case"], random["worst_case"])
    per_input = values["per_input", "V", q]
    masked = difference(per_input["recomputed"], per_input["worst_case"])
    return [
        Claim(
            "confined_to_what_is_left",
            "Confined to what V (one mask for all images) leaves, an attack fools fewer images than with every pixel.",
            OURS,
            f"{per_image(static['confined']).percent()} withstand the confined attack, {per_image(bare).percent()} "
            f"of the undefended classifier the free one, difference {left.percent()}",
            above(left),
            "" if above(left) == HOLDS else REMOVED,
        ),
        Claim(
            "adaptive_better_than_random",
            "In the worst case, removing V (one mask for all images) protects better than removing as many random "
            "pixels.",
            OURS,
            f"worst case without V {per_image(static['worst_case']).percent()}, without random pixels "
            f"{per_image(random['worst_case']).percent()}, difference {better.percent()}",
            above(better),
        ),
        Claim(
            "exact_gradients_tell_all",
            "With a mask found in each image, the exact gradient, which keeps the mask fixed, finds what the others "
            "find.",
            OURS,
            f"{masked.percent()} of the images withstand the exact gradient and are fooled by another attacker",
            exactness(masked),
            MASKED if exactness(masked) == FAILS else "",
        ),
    ]


def _two_digits(estimate: Estimate) -> str:
    """Return the estimate with two significant digits."""
    return estimate.text(digits=2)
