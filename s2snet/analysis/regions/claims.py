"""What the study of regions states, each claim decided by whether a 95 % interval lies above or below its bound."""

from types import SimpleNamespace

from torch import Tensor

from s2snet.analysis.bench import FAILS, HOLDS, Claim
from s2snet.analysis.intervals import Estimate, mean
from s2snet.analysis.regions.tables import Kept, Overlap, Stood, of_images
from s2snet.analysis.rules import above

PAPER = "arXiv 2011.10794, abstract; measured by our definitions"
OURS = "ours"
HOW = {"static": "one mask for all images", "per_class": "a mask per class", "per_input": "a mask found in each image"}
REMOVED = "what is taken out is missing to the classifier too, and the attack moves to what is left"
MASKED = "the choice of a mask has no gradient: the exact one is masked, and only the worst case counts"


def exactness(masked: Estimate) -> str:
    """Holds where no image fell to other attackers alone; fails where the interval of their share lies above 0."""
    return HOLDS if masked.value == 0 else above(masked).replace(HOLDS, FAILS)


def claims(eps: float, options: SimpleNamespace, overlap: Overlap, kept: Kept, stood: Stood) -> list[Claim]:
    """All claims; `eps` is the L2 radius of the attacks on defences."""
    found = [*_overlap(overlap, options)]
    for mode in ("static", "per_input"):
        found += _neutralising(eps, kept, options, mode)
    found += [_adaptive(eps, stood, options, mode) for mode in HOW]
    return [*found, *_decisive(stood, options)]


def _overlap(found: Overlap, options: SimpleNamespace) -> list[Claim]:
    q, look, attack = options.q, options.importance, options.attacks[0]
    own, random, others = (found.overlaps[look, "oracle", q, control] for control in ("", "random", "other image"))
    chance, specific = _difference(own, random), _difference(own, others)
    rank, alike = (found.correlations[look, "oracle", control] for control in ("", "other image"))
    agnostic, alien = (found.correlations["agnostic", "oracle", control] for control in ("", "other image"))
    spread = _difference(agnostic, alien)
    share, area = found.energies["agnostic", q, "V", attack]
    looked = found.energies["agnostic", q, "B", attack][0] + found.energies["agnostic", q, "I", attack][0]
    beyond = _difference(share, area)
    return [
        Claim(
            "co_location",
            "Attacks alter the pixels that the classifier looks at more than chance has it.",
            PAPER,
            f"IoU of the two regions ({q:g} of the pixels each; {look}; {', '.join(options.attacks)}) "
            f"{_plain(of_images(own))}, less that with random masks of equal area {_plain(chance)}; "
            f"Spearman {_plain(of_images(rank))}",
            above(chance),
        ),
        Claim(
            "co_location_is_the_images_own",
            "That overlap is the image's own, not one of any two images of the data.",
            OURS,
            f"IoU with other images' region of attack {_plain(of_images(others))}, the own less that "
            f"{_plain(specific)}; Spearman with them {_plain(of_images(alike))}",
            above(specific),
        ),
        Claim(
            "agnostic_stands_for_oracle",
            "The attack map that runs no attack finds where the image's attacks go.",
            OURS,
            f"Spearman with the oracle {_plain(of_images(agnostic))}, less that with other images' {_plain(spread)}",
            above(spread),
        ),
        Claim(
            "vulnerable_and_unimportant",
            "There is a region that attacks favour and the classifier does not look at.",
            PAPER,
            f"V, found without an attack, is {of_images(area).percent()} of the pixels and holds "
            f"{of_images(share).percent()} of the squared perturbation of {attack}, difference "
            f"{beyond.percent()}; the region of importance holds {of_images(looked).percent()}",
            above(beyond),
        ),
    ]


def _neutralising(eps: float, kept: Kept, options: SimpleNamespace, mode: str) -> list[Claim]:
    def of(values: dict[tuple, Tensor], part: str, received: str) -> Tensor:
        return values[mode, options.fill, options.q, part, received]

    clean = {part: of(kept.right, part, "clean") for part in ("V", "I")}
    gray = {part: of(kept.right, part, "gray_box") for part in ("V", "random", "shifted")}
    margin = {part: of(kept.margins, part, "clean") for part in ("V", "I", "random")}
    harm, spared = _difference(margin["V"], margin["I"]), _difference(margin["V"], margin["random"])
    gained, better = _difference(gray["V"], kept.plain["gray_box"]), _difference(gray["V"], gray["random"])
    return [
        Claim(
            f"unimportant_{mode}",
            f"V is unimportant for classification: taking it out ({HOW[mode]}) costs less than taking out I.",
            PAPER,
            f"margin in logits without V less that without I {_plain(harm)}, less that without random pixels of "
            f"V's area {_plain(spared)}; clean accuracy {of_images(kept.plain['clean']).percent()} with all pixels, "
            f"without V {of_images(clean['V']).percent()}, without I {of_images(clean['I']).percent()}",
            above(harm),
        ),
        Claim(
            f"gray_box_{mode}",
            f"Neutralising V ({HOW[mode]}) helps against an attack that does not know of it.",
            PAPER,
            f"gray box accuracy at L2 {eps:g}: {of_images(kept.plain['gray_box']).percent()} with all pixels, "
            f"{of_images(gray['V']).percent()} without V, difference {gained.percent()}",
            above(gained),
        ),
        Claim(
            f"better_than_random_{mode}",
            f"It is V that does it ({HOW[mode]}): taking out as many pixels anywhere helps less.",
            OURS,
            f"gray box accuracy without V less that without random pixels {better.percent()}; without random pixels "
            f"{of_images(gray['random']).percent()}, without V moved elsewhere {of_images(gray['shifted']).percent()}",
            above(better),
        ),
    ]


def _adaptive(eps: float, everything: Stood, options: SimpleNamespace, mode: str) -> Claim:
    bare = everything["undefended", "nothing", 0.0]["worst_case"]
    stood = everything[mode, "V", options.q]
    gained = _difference(stood["worst_case"], bare)
    each = ", ".join(
        f"{attacker.replace('_', ' ')} {100 * right.float().mean():.1f} %"
        for attacker, right in stood.items()
        if attacker != "worst_case"
    )
    return Claim(
        f"adaptive_{mode}",
        f"Neutralising V ({HOW[mode]}) still helps when the attacker knows of it.",
        OURS,
        f"worst case at L2 {eps:g} {of_images(stood['worst_case']).percent()}, undefended {of_images(bare).percent()}, "
        f"difference {gained.percent()}. By attacker: {each}",
        above(gained),
        "" if above(gained) == HOLDS else REMOVED,
    )


def _decisive(stood: Stood, options: SimpleNamespace) -> list[Claim]:
    """What an attacker confined to what is left can do; whether V matters or its area; whether gradients are masked."""
    bare = stood["undefended", "nothing", 0.0]["worst_case"]
    static, random = (stood["static", part, options.q] for part in ("V", "random"))
    left = _difference(static["confined"], bare)
    better = _difference(static["worst_case"], random["worst_case"])
    per_input = stood["per_input", "V", options.q]
    masked = _difference(per_input["recomputed"], per_input["worst_case"])
    return [
        Claim(
            "confined_to_what_is_left",
            "Confined to what V (one mask for all images) leaves, an attack fools fewer images than with every pixel.",
            OURS,
            f"{of_images(static['confined']).percent()} stand against the confined attack, {of_images(bare).percent()} "
            f"of the undefended classifier's against the free one, difference {left.percent()}",
            above(left),
            "" if above(left) == HOLDS else REMOVED,
        ),
        Claim(
            "adaptive_better_than_random",
            "In the worst case, taking out V (one mask for all images) protects better than as many random pixels.",
            OURS,
            f"worst case without V {of_images(static['worst_case']).percent()}, without random pixels "
            f"{of_images(random['worst_case']).percent()}, difference {better.percent()}",
            above(better),
        ),
        Claim(
            "exact_gradients_tell_all",
            "With a mask found in each image, the exact gradient, which holds the mask still, finds what others find.",
            OURS,
            f"{masked.percent()} of the images stand against the exact gradient and fall to another attacker",
            exactness(masked),
            MASKED if exactness(masked) == FAILS else "",
        ),
    ]


def _difference(first: Tensor, second: Tensor) -> Estimate:
    """The mean difference of paired observations."""
    return mean((first.double() - second.double()).cpu())


def _plain(estimate: Estimate) -> str:
    return estimate.text(digits=2)
