"""What the study of regions states, each claim decided by whether a 95 % interval lies above or below its bound."""

from types import SimpleNamespace

from torch import Tensor

from s2snet.analysis.bench import FAILS, HOLDS, UNDECIDED, Claim
from s2snet.analysis.intervals import Estimate, mean

PAPER = "arXiv 2011.10794, abstract; measured by our definitions"
SAYS = {"static": "one mask for all images", "per_class": "a mask per class", "per_input": "a mask found in each image"}
REMOVED = "what is taken out is missing to the classifier too, and the attack moves to what is left"


def verdict(estimate: Estimate, bound: float = 0.0) -> str:
    """Holds where the interval lies above the bound, fails where it lies below, and is undecided between."""
    if estimate.low > bound:
        return HOLDS
    return FAILS if estimate.high < bound else UNDECIDED


def claims(known: SimpleNamespace, options: SimpleNamespace) -> list[Claim]:
    """All claims, from what `_overlap`, `_neutralising` and `_adaptive` of regions.py left in `known`."""
    return [*_overlap(known, options), *_neutralising(known, options), *_adaptive(known, options)]


def _overlap(known: SimpleNamespace, options: SimpleNamespace) -> list[Claim]:
    q, look = options.q, options.importance
    own, random, others = (known.overlaps[look, "oracle", q, control] for control in ("", "random", "other image"))
    chance, specific = _difference(own, random), _difference(own, others)
    rank, alike = (known.correlations[look, "oracle", control] for control in ("", "other image"))
    spread = _difference(
        known.correlations["agnostic", "oracle", ""], known.correlations["agnostic", "oracle", "other image"]
    )
    share, area = known.energies["agnostic", q, "V", options.attacks[0]]
    looked = (
        known.energies["agnostic", q, "B", options.attacks[0]][0]
        + known.energies["agnostic", q, "I", options.attacks[0]][0]
    )
    beyond = _difference(share, area)
    return [
        Claim(
            "co_location",
            "An attack alters the pixels that the classifier looks at more often than chance has it.",
            PAPER,
            f"IoU of both regions ({q:g} of the pixels each; {look}, attacks {', '.join(options.attacks)}) "
            f"{_plain(mean(own))}; above random masks of equal area by {_plain(chance)}; Spearman {_plain(mean(rank))}",
            verdict(chance),
        ),
        Claim(
            "co_location_is_the_images_own",
            "That overlap is this image's, not one of any two images of the data.",
            "ours",
            f"IoU with other images' region of attack {_plain(mean(others))}, lower by {_plain(specific)}; "
            f"Spearman with them {_plain(mean(alike))}",
            verdict(specific),
        ),
        Claim(
            "agnostic_stands_for_oracle",
            "The attack map that runs no attack finds where this image's attacks go.",
            "ours",
            f"Spearman with the oracle {_plain(mean(known.correlations['agnostic', 'oracle', '']))}, above that with "
            f"other images' oracles by {_plain(spread)}",
            verdict(spread),
        ),
        Claim(
            "vulnerable_and_unimportant",
            "There is a region that attacks favour and the classifier does not look at.",
            PAPER,
            f"V, found without an attack, is {_percent(mean(area))} of the pixels and holds {_percent(mean(share))} of "
            f"{options.attacks[0]}'s squared perturbation, {_percent(beyond)} more than its area; the region of "
            f"importance holds {_percent(mean(looked))}",
            verdict(beyond),
        ),
    ]  # fmt: skip


def _neutralising(known: SimpleNamespace, options: SimpleNamespace) -> list[Claim]:
    found = []
    for mode in ("static", "per_input"):
        kept = {key[3:]: value for key, value in known.kept.items() if key[:3] == (mode, options.fill, options.q)}
        harm = _difference(kept["V", "clean"], kept["I", "clean"])
        spared = _difference(kept["V", "clean"], kept["random", "clean"])
        gained = _difference(kept["V", "gray_box"], known.plain["gray_box"])
        better = _difference(kept["V", "gray_box"], kept["random", "gray_box"])
        found += [
            Claim(
                f"unimportant_{mode}",
                f"V is unimportant for classification: {SAYS[mode]}, taking it out costs less than taking out I.",
                PAPER,
                f"clean accuracy {_percent(mean(known.plain['clean']))} with all pixels; without V "
                f"{_percent(mean(kept['V', 'clean']))}, without I {_percent(mean(kept['I', 'clean']))}: {_percent(harm)} "
                f"between them; V less random pixels of its area {_percent(spared)}",
                verdict(harm),
            ),
            Claim(
                f"gray_box_{mode}",
                f"Neutralising V ({SAYS[mode]}) helps against an attack that does not know of it.",
                PAPER,
                f"gray box accuracy at L2 {known.eps:g}: {_percent(mean(known.plain['gray_box']))} with all pixels, "
                f"{_percent(mean(kept['V', 'gray_box']))} without V: {_percent(gained)} more",
                verdict(gained),
            ),
            Claim(
                f"better_than_random_{mode}",
                f"It is V that does it ({SAYS[mode]}): as many pixels anywhere help less.",
                "ours",
                f"gray box accuracy without random pixels {_percent(mean(kept['random', 'gray_box']))}, without V moved "
                f"elsewhere {_percent(mean(kept['shifted', 'gray_box']))}; V less random {_percent(better)}",
                verdict(better),
            ),
        ]
    return found


def _adaptive(known: SimpleNamespace, options: SimpleNamespace) -> list[Claim]:
    bare = known.stood["undefended", "nothing", 0.0]["worst_case"]
    found = []
    for mode in ("static", "per_class", "per_input"):
        stood = known.stood[mode, "V", options.q]
        gained = _difference(stood["worst_case"], bare)
        each = ", ".join(
            f"{attacker.replace('_', ' ')} {100 * right.float().mean():.1f} %"
            for attacker, right in stood.items()
            if attacker != "worst_case"
        )
        found.append(
            Claim(
                f"adaptive_{mode}",
                f"Neutralising V ({SAYS[mode]}) still helps when the attacker knows of it.",
                "ours",
                f"worst case at L2 {known.eps:g} {_percent(_share(stood['worst_case']))}, undefended "
                f"{_percent(_share(bare))}: {_percent(gained)} more. By attacker: {each}",
                verdict(gained),
                REMOVED if verdict(gained) != HOLDS else "",
            )
        )
    confined = known.stood["static", "V", options.q]["confined"]
    left = _difference(confined, bare)
    random = known.stood["static", "random", options.q]["worst_case"]
    against = _difference(known.stood["static", "V", options.q]["worst_case"], random)
    stood = known.stood["per_input", "V", options.q]
    masked = _difference(stood["recomputed"], stood["worst_case"])
    return [
        *found,
        Claim(
            "confined_to_what_is_left",
            "An attacker who leaves V alone (one mask for all images) fools fewer images than one who has every pixel.",
            "ours",
            f"confined to the complement of V {_percent(_share(confined))} stand, undefended {_percent(_share(bare))}: "
            f"{_percent(left)} more",
            verdict(left),
            REMOVED if verdict(left) != HOLDS else "",
        ),
        Claim(
            "adaptive_better_than_random",
            "In the worst case V (one mask for all images) protects better than as many random pixels.",
            "ours",
            f"worst case without V {_percent(_share(known.stood['static', 'V', options.q]['worst_case']))}, without random "
            f"pixels {_percent(_share(random))}: {_percent(against)} more",
            verdict(against),
        ),
        Claim(
            "exact_gradients_tell_all",
            "With a mask found in each image the exact gradient, which does not see the mask move, finds what all find.",
            "ours",
            f"{_percent(masked)} of the images stand against the exact gradient and fall to another attacker",
            _exact(masked),
            "a choice has no gradient: the exact one is masked, and only the worst case counts" if _exact(masked) == FAILS else "",
        ),
    ]  # fmt: skip


def _exact(masked: Estimate) -> str:
    """Holds where no image is found by others alone, fails where the interval of that share lies above 0."""
    return HOLDS if masked.value == 0 else FAILS if masked.low > 0 else UNDECIDED


def _difference(first: Tensor, second: Tensor) -> Estimate:
    """The mean difference of paired observations."""
    return mean((first.double() - second.double()).cpu())


def _share(right: Tensor) -> Estimate:
    return mean(right.double().cpu())


def _plain(estimate: Estimate) -> str:
    return estimate.text(digits=2)


def _percent(estimate: Estimate) -> str:
    return estimate.percent()
