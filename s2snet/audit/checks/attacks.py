"""Checks of the attacks against each other: a weak attack must not find what the strong ones miss."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from s2snet.audit.checks.defence import faulty_part
from s2snet.audit.checks.finding import FAIL, NOT_APPLICABLE, PASS, WARN, Answer, grade
from s2snet.audit.checks.record import Record, reads_probe
from s2snet.evaluation.schema import WORST_CASE
from s2snet.evaluation.scores import headline_budget, wilson

ONE_STEP = ("fgsm",)
LESS_INFORMED = ("gray_box", "transfer", "query", "universal")
POINT = 0.01
Selects = Callable[[str, str, str], bool]  # (threat, route, attack) -> whether the cell is included


def iterative_vs_single(record: Record) -> Iterator[Answer]:
    """Iterative attacks fool every image that a single step fools.

    If FGSM fools an image that no iterative white-box attack fools, the iterative steps go astray. Compared at the same
    radius, over all routes. Warns on one image; fails on more than one image and more than one point, because even a
    linear classifier's margin has several maxima on a ball and a single start misses an image now and then.

    Remedy: more and smaller steps, restarts, the margin loss; routes soft and smoothed.
    """
    for defence in record.defences:
        pair = (
            lambda threat, route, attack: threat == "white_box" and attack in ONE_STEP,
            lambda threat, route, attack: threat == "white_box" and attack not in ONE_STEP,
        )
        yield from _fooled_only_by(
            record,
            defence["name"],
            {"": pair},
            "one step",
            "defence",
            lambda share, n: (n > 0, n > 1 and share > POINT),
        )


@reads_probe("noise")
def noise(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """Random noise fools no image that the attacks miss.

    Noise is the weakest attack there is. Sixty draws from the ball, half of them corners, around up to 64 images that
    withstood every attack. Warns if noise fools one image, fails on more than one image and more than one point.

    Remedy: the attacks do not work; check gradients and routes first.
    """
    name = defence["name"]
    fooled = record.fooled(name, "linf", measured["eps"], lambda *_: True)
    if fooled is None:
        yield Answer(name, NOT_APPLICABLE, f"no attack at the probe's radius {measured['eps']:.4g}")
        return
    by_noise = np.searchsorted(record.scores.selected, np.array(measured["fooled"], int))
    missed = int((~fooled[by_noise] & record.clean_correct(name)[by_noise]).sum())
    n = len(measured["images"])
    verdict = FAIL if missed > 1 and missed > POINT * n else WARN if missed else PASS
    yield Answer(
        name,
        verdict,
        f"{missed} of {n} images that withstood the attacks are fooled by {measured['draws']} draws of noise",
        "defence",
    )


def less_informed(record: Record) -> Iterator[Answer]:
    """An attacker who knows less fools no image that the exact gradient misses.

    If a gray-box, transfer, query or universal attack, or BPDA with the identity, fools images that withstand the exact
    white box, the exact gradient is masked. The worst case includes all of them; a report of the exact white box alone
    would be wrong. Warns above half a point, fails above two.

    Remedy: use every route and a query attack; never report the exact gradient alone.
    """
    for defence in record.defences:
        part = "purifier" if defence.get("has_purifier") else "classifier"
        pair = (
            lambda threat, route, attack: threat in LESS_INFORMED or (threat, route) == ("white_box", "identity"),
            lambda threat, route, attack: (threat, route) == ("white_box", "exact"),
        )
        yield from _fooled_only_by(
            record,
            defence["name"],
            {"": pair},
            "a less informed attacker",
            part,
            _masked,
        )


def route_gap(record: Record) -> Iterator[Answer]:
    """No other white-box route fools images that the exact gradient misses.

    If a soft, fitted or smoothed backward pass fools images that the purifier's own backward pass misses, the purifier
    masks its gradient. The worst case includes every route; a report of the exact route alone would be wrong. Warns
    above half a point, fails above two.

    Remedy: report the minimum over all routes, and give the strongest route more steps and restarts.
    """
    for defence in record.defences:
        if not defence.get("has_purifier"):
            continue
        routes = {label[2] for label in record.scores.parts if label[:2] == (defence["name"], "white_box")}
        pairs = {
            other: (
                lambda threat, route, attack, other=other: (threat, route) == ("white_box", other),
                lambda threat, route, attack: (threat, route) == ("white_box", "exact"),
            )
            for other in sorted(routes - {"exact", "identity"})
        }
        yield from _fooled_only_by(record, defence["name"], pairs, "another route", "purifier", _masked)


def controls(record: Record) -> Iterator[Answer]:
    """A tuned purifier is more robust than the same network before tuning.

    If the plain stage-1 autoencoder is as robust, the architecture explains the number and not the training. Compares
    the worst cases at the headline budget. Warns if the lower end of the tuned purifier's interval is not above the
    control. Not applicable without an autoencoder among the defences.

    Remedy: report that the architecture explains the number.
    """
    names = [defence["name"] for defence in record.defences]
    for defence in record.defences:
        name = defence["name"]
        budget = headline_budget(record.budgets(name))
        if not defence.get("has_purifier") or name == "autoencoder" or "autoencoder" not in names or budget is None:
            continue
        tuned, control = (record.headline.get((who, WORST_CASE, *budget)) for who in (name, "autoencoder"))
        if tuned and control and None not in (tuned["accuracy"], control["accuracy"]):
            evidence = f"{budget[0]} {budget[1]:.4g}: {tuned['accuracy']:.1%}, the stage-1 autoencoder "
            evidence += f"{control['accuracy']:.1%}"
            yield Answer(name, PASS if tuned["low"] > control["accuracy"] else WARN, evidence, "purifier")


@reads_probe("control")
def random_control(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """A trained purifier is more robust than the same architecture trained only to copy its input.

    A jagged surface withstands a weak attack however it was trained. The purifier's network is built again, trained to
    reproduce training images, put in front of the same classifier and attacked in the same way (PGD-40, one radius, one
    route). Warns if the lower end of the defence's interval is not above the control.

    Remedy: report that the architecture explains the number; more steps, Auto-PGD, routes soft and smoothed.
    """
    robust, control, n = measured["left"]["defence"], measured["left"]["control"], measured["images"]
    low, _ = wilson(robust * n, n)
    evidence = f"accuracy under PGD-40 at {measured['eps']:.4g}: {robust:.1%}, of the control {control:.1%} (n={n}; "
    evidence += f"clean: {measured['clean']['defence']:.1%} and {measured['clean']['control']:.1%})"
    yield Answer(defence["name"], PASS if low > control else WARN, evidence, "purifier")


def minimal_vs_budget(record: Record) -> Iterator[Answer]:
    """Minimal attacks and budget attacks agree at the same radius.

    If two ways to measure one number differ by points, one of them has not converged. Warns above two points; fails
    above five at two radii in the same direction. Needs 200 images.

    Remedy: more steps for the kind that finds less; the worst case includes both.
    """
    minimal = {label[3] for label in record.scores.parts if np.isinf(label[5])}
    for defence in record.defences:
        name = defence["name"]
        correct = record.clean_correct(name)
        gaps = []
        for norm, eps in record.budgets(name):
            by_minimal = record.fooled(name, norm, eps, lambda t, r, a: t == "white_box" and a in minimal)
            by_budget = record.fooled(name, norm, eps, lambda t, r, a: t == "white_box" and a not in minimal)
            if by_minimal is not None and by_budget is not None:
                gap = float((by_minimal & correct).mean() - (by_budget & correct).mean())
                gaps.append((gap, f"{norm} {eps:.4g}"))
        if not gaps or len(correct) < 200:
            yield Answer(name, NOT_APPLICABLE, "needs both kinds of attack and 200 images")
            continue
        largest, budget = max(gaps, key=lambda pair: abs(pair[0]))
        twice = any(sum(sign * gap > 0.05 for gap, _ in gaps) > 1 for sign in (1, -1))
        kind = "minimal" if largest > 0 else "budget"
        evidence = f"{budget}: {kind} attacks find {100 * abs(largest):.1f} points more (n={len(correct)})"
        yield Answer(name, FAIL if twice else WARN if abs(largest) > 0.02 else PASS, evidence, "attack")


@reads_probe("more")
def converged(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """More steps, another loss and more restarts fool no further image.

    An attack that has not converged reports its own weakness as the defence's strength. Auto-PGD with 200 steps,
    Auto-PGD with the margin loss and PGD with three restarts attack the images that withstood the evaluation. Warns on
    any image, fails above one point.

    Remedy: more steps and restarts; attack=[apgd,apgd_margin,apgd_t].
    """
    fooled = record.fooled(defence["name"], "linf", measured["eps"], lambda *_: True)
    if fooled is None:
        yield Answer(defence["name"], NOT_APPLICABLE, f"no attack at the probe's radius {measured['eps']:.4g}")
        return
    withstood = set(record.scores.selected[record.clean_correct(defence["name"]) & ~fooled])
    gained = {attack: set(images) & withstood for attack, images in measured["fooled"].items()}
    n, of = len(set().union(*gained.values())), len(measured["images"])
    by_attack = ", ".join(f"{attack} {len(images)}" for attack, images in gained.items())
    verdict = FAIL if n > POINT * of else WARN if n else PASS
    yield Answer(defence["name"], verdict, f"{n} more of {of} images fooled ({by_attack})", "attack")


@reads_probe("active")
def active_test(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """The attack finds an adversarial image that is known to exist.

    A linear readout of the last layer's features is built that answers differently at one planted corner of the ball
    and nowhere else among the draws. The white-box attacks of this evaluation, with their own options, must find such a
    point (Zimmermann et al., arXiv 2206.13991). Warns if all of them together find it on under 95 % of the images,
    fails under 90 %.

    Remedy: the attack does not climb on this defence: more steps, routes identity, soft, smoothed, learned, and a query
    attack.
    """
    n, chance = measured["images"], measured["by_chance"]
    if n < measured["asked"] / 2 or chance > 0.05:
        evidence = f"the plant can be separated on {n} of {measured['asked']} images; {chance:.0%} of draws find it"
        yield Answer(defence["name"], NOT_APPLICABLE, evidence)
        return
    best, most = max(measured["found"].items(), key=lambda item: item[1])
    evidence = f"{measured['any']} of {n} plants found, {most} by {best}; {chance:.0%} of draws find one by chance"
    verdict = grade(1 - measured["any"] / n, 0.05, 0.1)
    yield Answer(defence["name"], verdict, evidence, faulty_part(record, defence["name"]))


@reads_probe("more")
def monotone(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """Accuracy never rises with the radius.

    The larger ball contains the smaller one. PGD at a quarter, half, one, two and four times the radius. Warns on any
    rise, fails above one point.

    Remedy: the attack has not converged at the larger radius; more steps and restarts.
    """
    curve = sorted((float(eps), accuracy) for eps, accuracy in measured["curve"].items())
    rise = max((after - before for (_, before), (_, after) in pairwise(curve)), default=0.0)
    points = ", ".join(f"{eps:.3g}: {accuracy:.1%}" for eps, accuracy in curve)
    yield Answer(defence["name"], grade(rise, 1e-9, POINT), f"{points} (n={len(measured['images'])})", "attack")


@reads_probe("more")
def eps_one(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """Without a limit on the perturbation no image stays correct.

    At L-infinity 1 every image can be reached, so an attack that leaves some correct does not work there. PGD with
    steps of 1/16. Warns above 0 %, fails above chance.

    Remedy: the gradient is absent or misleading: routes soft, smoothed and learned, and a query attack.
    """
    chance = 1 / max(len(record.run["classes"]), 1)
    verdict = grade(measured["eps_one"], 0.0, chance)
    yield Answer(
        defence["name"], verdict, f"accuracy {measured['eps_one']:.1%} (n={len(measured['images'])})", "attack"
    )


def _masked(share: float, n: int) -> tuple[bool, bool]:
    """Return whether a share of images that only the others fool is a reason to warn, and to fail."""
    return share > 0.005, share > 0.02


def _fooled_only_by(
    record: Record,
    name: str,
    pairs: dict[str, tuple[Selects, Selects]],
    by: str,
    part: str,
    judge: Callable[[float, int], tuple[bool, bool]],
) -> Iterator[Answer]:
    """Count clean-correct images that the first cells of a pair fool and the second do not; answer for the worst pair.

    `judge(share, count)` returns whether to warn, and whether to fail. `by` names the first cells in the evidence.
    """
    correct = record.clean_correct(name)
    most, where, compared = 0, "", 0
    for norm, eps in record.budgets(name):
        for label, (weak, strong) in pairs.items():
            by_weak, by_strong = record.fooled(name, norm, eps, weak), record.fooled(name, norm, eps, strong)
            if by_weak is None or by_strong is None:
                continue
            compared += 1
            missed = int((by_weak & ~by_strong & correct).sum())
            if missed > most:
                most, where = missed, f"{label} {norm} {eps:.4g}".strip()
    if not compared:
        yield Answer(name, NOT_APPLICABLE, f"nothing to compare {by} with")
        return
    warns, fails = judge(most / len(correct), most)
    missed_images = f"{where}: {most} of {len(correct)} images are fooled by {by} only"
    evidence = missed_images if most else f"none in {compared} comparisons"
    yield Answer(name, FAIL if fails else WARN if warns else PASS, evidence, part)
