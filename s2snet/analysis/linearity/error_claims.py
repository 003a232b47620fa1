"""Claims about errors under the sign step: linear nets fail, training helps or not, models agree. Imports no torch."""

from collections.abc import Callable

from s2snet.analysis import intervals
from s2snet.analysis.claim import Claim, decide, exceeds
from s2snet.analysis.intervals import Estimate
from s2snet.analysis.linearity.paper_figures import PAPER
from s2snet.analysis.linearity.rows import Rows, estimate, find

NEAR = 0.05  # a difference of errors that counts as none
Pick = Callable[..., Estimate]  # (judge, eps, source) -> the error on images that are not clipped


def all_claims(
    errors: Rows,
    curves: Rows,
    alphas: Rows,
    many_steps: Rows,
    agreement: Rows,
    clean_change: Estimate,
    monitored: int,
    classes: int,
    eps: float,
    alpha: float,
) -> list[Claim]:
    """Return the claims, from the tables of these names.

    `clean_change` is the adversarially trained net's clean error minus the plain one's, image by image. `monitored` is
    the number of test images behind the curves.
    """

    def pick(judge: str, radius: float = eps, source: str | None = None) -> Estimate:
        return estimate(find(errors, judge, source or judge, radius, False))

    return [
        fragile(pick, eps),
        unsure(errors, eps),
        *adversarial(pick, eps, clean_change),
        *noise(pick),
        transfer(pick),
        one_step_is_all(many_steps, eps),
        *share_of_clean(alphas, alpha),
        stopping(curves, monitored),
        *same_mistakes(agreement, classes),
        ensemble(pick),
    ]


def fragile(pick: Pick, eps: float) -> Claim:
    """Return the claim that one step fools linear and near-linear nets."""
    softmax, maxout = pick("softmax"), pick("maxout")
    return Claim(
        "one step fools linear and near-linear nets",
        f"One sign step of eps = {eps:g} makes softmax regression and maxout wrong on most images (more than half).",
        f"{PAPER}, section 4",
        f"softmax {softmax.percent()} (clean {pick('softmax', 0.0).percent()}), maxout {maxout.percent()} (clean "
        f"{pick('maxout', 0.0).percent()})",
        decide(min(softmax.low, maxout.low) > 0.5, min(softmax.high, maxout.high) < 0.5),
    )


def unsure(rows: Rows, eps: float) -> Claim:
    """Return the claim that the RBF net is less confident than maxout on images that fool it."""
    rbf, maxout = (find(rows, name, name, eps, False) for name in ("rbf", "maxout"))
    confidence = [estimate(row, "confidence_mistakes") if row["error"] else None for row in (rbf, maxout)]
    texts = [each.percent() if each else "no mistakes" for each in confidence]
    known = None not in confidence
    return Claim(
        "RBF is unsure when fooled",
        "On images that fool it, the RBF net is less confident than maxout on images that fool maxout.",
        f"{PAPER}, section 7",
        f"confidence on mistakes: RBF {texts[0]}, maxout {texts[1]}; errors {estimate(rbf).percent()} and "
        f"{estimate(maxout).percent()}",
        decide(known and confidence[0].high < confidence[1].low, known and confidence[0].low > confidence[1].high),
    )


def same_mistakes(rows: Rows, classes: int) -> list[Claim]:
    """Return the claims that nets make the same mistakes on maxout's images, linear ones most."""
    among = {(row["first"], row["second"], row["among"]): row for row in rows}

    softmax, rbf = (
        row and estimate(row, "same")
        for row in (among.get(("maxout", net, "both wrong")) for net in ("softmax", "rbf"))
    )
    chance = 1 / (classes - 1)
    texts = {name: each.percent() if each else "never both wrong" for name, each in (("s", softmax), ("r", rbf))}
    known = softmax is not None and rbf is not None
    return [
        Claim(
            "models agree on the wrong class",
            "If both are wrong on maxout's FGSM images, softmax regression predicts maxout's class more often than by "
            "chance.",
            f"{PAPER}, section 8",
            f"same class {texts['s']}; chance {100 * chance:.3g} %",
            decide(softmax is not None and softmax.low > chance, softmax is not None and softmax.high < chance),
        ),
        Claim(
            "linear models agree more",
            "If both are wrong, softmax regression predicts maxout's wrong class more often than the RBF net does.",
            f"{PAPER}, section 8",
            f"softmax {texts['s']}, RBF {texts['r']}",
            decide(known and softmax.low > rbf.high, known and softmax.high < rbf.low),
        ),
    ]


def ensemble(pick: Pick) -> Claim:
    """Return the claim that an ensemble does not resist an attack on all its members."""
    single, together, by_one = pick("maxout"), pick("ensemble"), pick("ensemble", source="maxout")
    return Claim(
        "an ensemble does not help",
        f"Attacked as a whole, an ensemble of maxout nets errs as much as one of them (within {100 * NEAR:g} points).",
        f"{PAPER}, section 9",
        f"ensemble {together.percent()}, attacked on one member {by_one.percent()}, one net {single.percent()}",
        decide(together.high >= single.low - NEAR, together.high < single.low - NEAR),
    )


def adversarial(pick: Pick, eps: float, clean: Estimate) -> list[Claim]:
    """Return the claims about adversarial training; `clean` is the change of the clean error, image by image."""
    plain, hard = pick("maxout"), pick("adversarial")
    return [
        Claim(
            "adversarial training helps",
            f"Adversarial training more than halves maxout's error under one step of eps = {eps:g}.",
            f"{PAPER}, section 6",
            f"from {plain.percent()} to {hard.percent()}",
            decide(hard.high < plain.low / 2, hard.low > plain.high / 2),
        ),
        Claim(
            "adversarial training regularises",
            "Adversarial training lowers maxout's clean error too.",
            f"{PAPER}, section 6",
            f"difference of clean errors, image by image: {clean.percent()}",
            decide(clean.high < 0, clean.low > 0),
            "as many epochs for both; the paper stops each after a hundred without gain" if clean.low > 0 else "",
        ),
    ]


def noise(pick: Pick) -> list[Claim]:
    """Return the claims that training on noise is no substitute for adversarial training."""
    plain, hard = pick("maxout"), pick("adversarial")
    claims = []
    for kind, what in (("signs", "±eps added to each pixel"), ("uniform", "U(-eps, eps)")):
        noisy = pick(kind)
        gain = plain.low - noisy.high, plain.high - noisy.low  # at least, at most
        full = plain.low - hard.high, plain.high - hard.low
        claims.append(
            Claim(
                f"noise is no substitute: {kind}",
                f"Training on noise, {what}, reduces the FGSM error by less than a quarter of what adversarial "
                "training does.",
                f"{PAPER}, section 6; the quarter is ours",
                f"error {noisy.percent()}, against {plain.percent()} without and {hard.percent()} with adversarial "
                "training",
                decide(gain[1] < full[0] / 4, full[0] > 0 and gain[0] > full[1] / 4),
            )
        )
    return claims


def transfer(pick: Pick) -> Claim:
    """Return the claim that perturbations of the plain net fool the adversarially trained one less than the reverse."""
    to_new, to_old = pick("adversarial", source="maxout"), pick("maxout", source="adversarial")
    return Claim(
        "transfer to and from the adversarially trained net",
        "The adversarially trained net errs less on the plain net's FGSM images than the plain net on those of the "
        "adversarially trained one.",
        f"{PAPER}, section 6",
        f"plain to adversarially trained {to_new.percent()}, back {to_old.percent()}",
        exceeds(to_old, to_new),
    )


def one_step_is_all(rows: Rows, eps: float) -> Claim:
    """Return the claim that the adversarially trained net withstands the ball as it withstands the step."""
    errors = {row["attack"]: estimate(row) for row in rows if row["net"] == "adversarial"}
    first, *others = errors.values()
    worst = max(others, key=lambda each: each.value)
    return Claim(
        "what withstands the step withstands the ball",
        f"The adversarially trained net errs no more under other attacks of eps = {eps:g} than under the step that it "
        f"was trained on (within {100 * NEAR:g} points).",
        "ours",
        "; ".join(f"{attack} {each.percent()}" for attack, each in errors.items()),
        decide(worst.high <= first.low + NEAR, worst.low > first.high + NEAR),
        "one-step training teaches the net that step; see the evaluation, python evaluate.py, for what a net is worth"
        if worst.low > first.high + NEAR
        else "",
    )


def share_of_clean(rows: Rows, alpha: float) -> list[Claim]:
    """Return the claim that alpha works about as well as others; none if no other alpha was trained."""
    errors = {
        row["alpha"]: Estimate(row["stepped"], row["stepped_low"], row["stepped_high"], row["n"])
        for row in rows
        if row["net"] != "maxout"
    }
    if len(errors) == 1:
        return []
    own, best = errors[alpha], min(errors.values(), key=lambda each: each.value)
    return [
        Claim(
            "alpha",
            f"alpha = {alpha:g} works about as well as others (FGSM error within {100 * NEAR:g} points of the best).",
            f"{PAPER}, section 6: 0.5 was a first guess that worked well enough",
            "; ".join(f"alpha {value:g} {each.percent()}" for value, each in errors.items()),
            decide(own.high <= best.low + NEAR, own.low > best.high + NEAR),
        )
    ]


def stopping(curves: Rows, n: int) -> Claim:
    """Return the claim about early stopping: test errors at the epochs that either validation error selects."""
    curve = [row for row in curves if row["net"] == "adversarial"]
    chosen = {name: min(curve, key=lambda row: row[name]) for name in ("validation", "adversarial_validation")}
    at = {name: intervals.share(round(row["adversarial_test"] * n), n) for name, row in chosen.items()}
    by_clean, by_hard = at["validation"], at["adversarial_validation"]
    epochs = [chosen[name]["epoch"] for name in ("validation", "adversarial_validation")]
    return Claim(
        "early stopping on adversarial error",
        "Under adversarial training, stopping at the least adversarial validation error leaves less FGSM error than "
        "stopping at the least clean validation error.",
        f"{PAPER}, section 6",
        f"stopping by clean error at epoch {epochs[0]}: {by_clean.percent()}; by adversarial error at epoch "
        f"{epochs[1]} of {len(curve)}: {by_hard.percent()}",
        exceeds(by_clean, by_hard),
        f"{len(curve)} epochs; the paper waits for a hundred without gain" if by_hard.low > by_clean.high else "",
    )
