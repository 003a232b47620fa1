"""Checks of the attacks against each other: a stronger one finds more, and nothing weak finds what they miss."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from s2snet.checks.finding import FAIL, NOT_APPLICABLE, PASS, WARN, Answer, graded
from s2snet.checks.of_gradients import guilty
from s2snet.checks.record import Record, probed
from s2snet.evaluation.schema import WORST_CASE
from s2snet.evaluation.scores import wilson

ONE_STEP = ("fgsm",)
LESS_INFORMED = ("gray_box", "transfer", "query", "universal")
POINT = 0.01
Cells = Callable[[str, str, str], bool]  # (threat, route, attack) -> whether the cell belongs


def iterative_vs_single(record: Record) -> Iterator[Answer]:
    """Iterative attacks find all that one step finds.

    An image that FGSM turns and no iterative attack of the white box does says that the steps go astray. Same radius,
    any route. Warns on one image, fails on more than one and more than a point: the margin of even a linear classifier
    has several maxima on a ball, and one start loses an image now and then.

    Remedy: more and smaller steps, restarts, the margin loss; routes soft and smoothed.
    """
    for defence in record.defences:
        pair = (
            lambda t, r, a: t == "white_box" and a in ONE_STEP,
            lambda t, r, a: t == "white_box" and a not in ONE_STEP,
        )
        yield from _only(
            record,
            defence["name"],
            {"": pair},
            "one step",
            "defence",
            lambda share, n: (n > 0, n > 1 and share > POINT),
        )


@probed("noise")
def noise(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """Random points of the ball find nothing that the attacks miss.

    Noise is the weakest attack there is. Sixty draws, half of them corners, around 64 images that the attacks left.
    Warns where it turns one, fails where it turns more than one and more than a point.

    Remedy: the attacks do not work; look at gradients and routes first.
    """
    name = defence["name"]
    fell = record.turned(name, "linf", found["eps"], lambda *_: True)
    if fell is None:
        yield Answer(name, NOT_APPLICABLE, f"no attack at the probe's radius {found['eps']:.4g}")
        return
    at = np.searchsorted(record.scores.selected, np.array(found["fooled"], int))
    missed = int((~fell[at] & record.clean_right(name)[at]).sum())
    n = len(found["images"])
    verdict = FAIL if missed > 1 and missed > POINT * n else WARN if missed else PASS
    yield Answer(
        name,
        verdict,
        f"{missed} of {n} images that the attacks left fall to {found['draws']} draws of noise",
        "defence",
    )


def less_informed(record: Record) -> Iterator[Answer]:
    """An attacker who knows less does not find more than the exact gradient does.

    Where gray box, transfer, queries or BPDA with the identity turn images that the exact white box leaves, the exact
    gradient is masked. The worst case counts all of them; this says that a report of the exact white box alone
    would be wrong. Warns over half a point, fails over two.

    Remedy: take every route and the query attack; never report the exact gradient alone.
    """
    for defence in record.defences:
        part = "purifier" if defence.get("has_purifier") else "classifier"
        pair = (
            lambda t, r, a: t in LESS_INFORMED or (t, r) == ("white_box", "identity"),
            lambda t, r, a: (t, r) == ("white_box", "exact"),
        )
        yield from _only(
            record,
            defence["name"],
            {"": pair},
            "a less informed attacker",
            part,
            _masked,
        )


def route_gap(record: Record) -> Iterator[Answer]:
    """No other route of the white box finds what the exact gradient misses.

    Where a soft, fitted or smoothed backward pass turns images that the purifier's own leaves, the purifier masks its
    gradient. The worst case counts every route; a report of the exact one alone would be wrong. Warns over half a
    point, fails over two.

    Remedy: report the minimum over all routes, and give the route that found most more steps and restarts.
    """
    for defence in record.defences:
        if not defence.get("has_purifier"):
            continue
        routes = {label[2] for label in record.scores.parts if label[:2] == (defence["name"], "white_box")}
        pairs = {
            route: (
                lambda t, r, a, route=route: (t, r) == ("white_box", route),
                lambda t, r, a: (t, r) == ("white_box", "exact"),
            )
            for route in sorted(routes - {"exact", "identity"})
        }
        yield from _only(record, defence["name"], pairs, "another route", "purifier", _masked)


def controls(record: Record) -> Iterator[Answer]:
    """A tuned purifier is better than the same network untuned.

    Where the plain stage-1 autoencoder withstands as much, the architecture makes the number and not the training.
    Compares worst cases at one budget. Warns where the lower end of the tuned one's interval is not above the
    control. Not applicable without an autoencoder among the defences.

    Remedy: say that the architecture makes the number.
    """
    names = [defence["name"] for defence in record.defences]
    for defence in record.defences:
        name = defence["name"]
        at = record.reference(record.budgets(name))
        if not defence.get("has_purifier") or name == "autoencoder" or "autoencoder" not in names or at is None:
            continue
        mine, control = (record.speaking.get((who, WORST_CASE, *at)) for who in (name, "autoencoder"))
        if mine and control and None not in (mine["accuracy"], control["accuracy"]):
            said = f"{at[0]} {at[1]:.4g}: {mine['accuracy']:.1%}, the stage-1 autoencoder {control['accuracy']:.1%}"
            yield Answer(name, PASS if mine["low"] > control["accuracy"] else WARN, said, "purifier")


@probed("control")
def random_control(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """A trained purifier is better than its own architecture that only learned to copy.

    A jagged surface withstands a weak attack whoever shaped it. The purifier's network is built anew, fitted to the
    identity on training images, put before the same classifier and attacked alike (PGD-40, one radius, one route).
    Warns where the lower end of the defence's interval is not above what the control keeps.

    Remedy: say that the architecture makes the number; more steps, Auto-PGD, routes soft and smoothed.
    """
    mine, control, n = found["left"]["defence"], found["left"]["control"], found["images"]
    low, _ = wilson(mine * n, n)
    said = f"PGD-40 at {found['eps']:.4g} leaves {mine:.1%}, of the control {control:.1%} (n={n}; clean "
    said += f"{found['clean']['defence']:.1%} and {found['clean']['control']:.1%})"
    yield Answer(defence["name"], PASS if low > control else WARN, said, "purifier")


def minimal_vs_budget(record: Record) -> Iterator[Answer]:
    """Minimal attacks and budget attacks agree at the same radius.

    Two ways to one number that are points apart say that one of them has not converged. Warns over two points, fails
    over five at two radii in the same direction. Needs 200 images.

    Remedy: more steps for the kind that finds less; both count in the worst case.
    """
    minimal = {label[3] for label in record.scores.parts if np.isinf(label[5])}
    for defence in record.defences:
        name = defence["name"]
        right = record.clean_right(name)
        gaps = []
        for norm, eps in record.budgets(name):
            few = record.turned(name, norm, eps, lambda t, r, a: t == "white_box" and a in minimal)
            many = record.turned(name, norm, eps, lambda t, r, a: t == "white_box" and a not in minimal)
            if few is not None and many is not None:
                gaps.append((float((few & right).mean() - (many & right).mean()), f"{norm} {eps:.4g}"))
        if not gaps or len(right) < 200:
            yield Answer(name, NOT_APPLICABLE, "needs both kinds of attack and 200 images")
            continue
        gap, where = max(gaps, key=lambda found: abs(found[0]))
        twice = any(sum(sign * found > 0.05 for found, _ in gaps) > 1 for sign in (1, -1))
        kind = "minimal" if gap > 0 else "budget"
        said = f"{where}: {kind} attacks find {100 * abs(gap):.1f} points more (n={len(right)})"
        yield Answer(name, FAIL if twice else WARN if abs(gap) > 0.02 else PASS, said, "attack")


@probed("more")
def converged(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """More steps, another loss and more restarts find nothing new.

    An attack that has not converged reports its own weakness as the defence's strength. Auto-PGD with 200 steps and
    with the margin loss, PGD with three more restarts, on images that the evaluation left. Warns on any image, fails
    over a point.

    Remedy: more steps and restarts; attack=[apgd,apgd_margin,apgd_t].
    """
    fell = record.turned(defence["name"], "linf", found["eps"], lambda *_: True)
    if fell is None:
        yield Answer(defence["name"], NOT_APPLICABLE, f"no attack at the probe's radius {found['eps']:.4g}")
        return
    right = record.clean_right(defence["name"]) & ~fell
    gained = {way: set(images) & set(record.scores.selected[right]) for way, images in found["fooled"].items()}
    n, of = len(set().union(*gained.values())), len(found["images"])
    said = ", ".join(f"{way} {len(images)}" for way, images in gained.items())
    verdict = FAIL if n > POINT * of else WARN if n else PASS
    yield Answer(defence["name"], verdict, f"{n} of {of} images gained ({said})", "attack")


@probed("active")
def active_test(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """The attack finds an adversarial image that is known to be there.

    A readout of the last layer's features is made to answer otherwise at one planted corner of the ball and nowhere
    else that was drawn; the white-box attacks of this evaluation, as they were run, look for such a point (Zimmermann
    et al., arXiv 2206.13991). Warns where all of them together find it on under 95 % of images, fails under 90 %.

    Remedy: the attack does not climb on this defence: more steps, routes identity, soft, smoothed, learned, and query.
    """
    n, chance = found["images"], found["by_chance"]
    if n < found["asked"] / 2 or chance > 0.05:
        said = f"the plant could be told apart on {n} of {found['asked']} images, by chance it is found on {chance:.0%}"
        yield Answer(defence["name"], NOT_APPLICABLE, said)
        return
    best, most = max(found["found"].items(), key=lambda item: item[1])
    said = f"{found['any']} of {n} plants found, {most} by {best}; by chance {chance:.0%} of draws"
    yield Answer(defence["name"], graded(1 - found["any"] / n, 0.05, 0.1), said, guilty(record, defence["name"]))


@probed("more")
def monotone(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """A larger radius never leaves more images right.

    The larger ball holds the smaller. PGD at a quarter, half, one, two and four radii. Warns on any rise, fails over
    a point.

    Remedy: the attack has not converged at the larger radius; more steps and restarts.
    """
    curve = sorted((float(eps), accuracy) for eps, accuracy in found["curve"].items())
    rise = max((after - before for (_, before), (_, after) in pairwise(curve)), default=0.0)
    said = ", ".join(f"{eps:.3g}: {accuracy:.1%}" for eps, accuracy in curve)
    yield Answer(defence["name"], graded(rise, 1e-9, POINT), f"{said} (n={len(found['images'])})", "attack")


@probed("more")
def eps_one(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """Without a limit nothing stays right.

    At L-infinity 1 every image can be reached, so an attack that leaves some does not work there. Steps of 1/16. Warns
    over 0 %, fails over chance.

    Remedy: no gradient, or one that points nowhere: soft, smoothed and learned routes, the query attack.
    """
    chance = 1 / max(len(record.run["classes"]), 1)
    verdict = graded(found["eps_one"], 0.0, chance)
    yield Answer(defence["name"], verdict, f"{found['eps_one']:.1%} left (n={len(found['images'])})", "attack")


def _masked(share: float, n: int) -> tuple[bool, bool]:
    """Whether images that only others turn are to warn, and to fail."""
    return share > 0.005, share > 0.02


def _only(
    record: Record,
    name: str,
    pairs: dict[str, tuple[Cells, Cells]],
    by: str,
    part: str,
    judge: Callable[[float, int], tuple[bool, bool]],
) -> Iterator[Answer]:
    """Images right without an attack that the first cells of a pair turn and the second do not: the worst pair's.

    `judge` says from their share and number whether that is to warn, and to fail.
    """
    right = record.clean_right(name)
    most, where, compared = 0, "", 0
    for norm, eps in record.budgets(name):
        for label, (weak, strong) in pairs.items():
            fell, others = record.turned(name, norm, eps, weak), record.turned(name, norm, eps, strong)
            if fell is None or others is None:
                continue
            compared += 1
            missed = int((fell & ~others & right).sum())
            if missed > most:
                most, where = missed, f"{label} {norm} {eps:.4g}".strip()
    if not compared:
        yield Answer(name, NOT_APPLICABLE, f"nothing to compare {by} with")
        return
    warns, fails = judge(most / len(right), most)
    said = f"{where}: {most} of {len(right)} images fall to {by} only" if most else f"none in {compared} comparisons"
    yield Answer(name, FAIL if fails else WARN if warns else PASS, said, part)
