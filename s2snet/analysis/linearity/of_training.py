"""What is claimed of ways of training: adversarial, on noise, with other alphas, stopped by another error."""

from collections.abc import Callable

from s2snet.analysis import intervals
from s2snet.analysis.bench import Claim
from s2snet.analysis.intervals import Estimate
from s2snet.analysis.linearity.paper import PAPER
from s2snet.analysis.linearity.reading import NEAR, decide, estimate
from s2snet.analysis.linearity.training import WATCHED
from s2snet.analysis.rules import apart

Pick = Callable[..., Estimate]  # (judge, eps, source) -> the error, unclipped; of_errors.py


def adversarial(pick: Pick, eps: float, clean: Estimate) -> list[Claim]:
    """`clean` is the adversarially trained net's clean error minus the plain one's."""
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
    plain, hard = pick("maxout"), pick("adversarial")
    claims = []
    for kind, what in (("signs", "±eps added to each pixel"), ("uniform", "U(-eps, eps)")):
        noisy = pick(kind)
        gain = plain.low - noisy.high, plain.high - noisy.low  # at least, at most
        full = plain.low - hard.high, plain.high - hard.low
        claims.append(
            Claim(
                f"noise is no substitute: {kind}",
                f"Training on noise, {what}, takes off less than a quarter of the FGSM error that adversarial training "
                "does.",
                f"{PAPER}, section 6; the quarter is ours",
                f"error {noisy.percent()}, beside {plain.percent()} without and {hard.percent()} with adversarial "
                "training",
                decide(gain[1] < full[0] / 4, full[0] > 0 and gain[0] > full[1] / 4),
            )
        )
    return claims


def transfer(pick: Pick) -> Claim:
    to_new, to_old = pick("adversarial", source="maxout"), pick("maxout", source="adversarial")
    return Claim(
        "transfer to and from the adversarially trained net",
        "The adversarially trained net errs less on the plain net's FGSM images than the plain net on its.",
        f"{PAPER}, section 6",
        f"plain to adversarially trained {to_new.percent()}, back {to_old.percent()}",
        apart(to_old, to_new),
    )


def one_step_is_all(rows: list[dict], eps: float) -> Claim:
    found = {row["attack"]: estimate(row) for row in rows if row["net"] == "adversarial"}
    first, *others = found.values()
    worst = max(others, key=lambda each: each.value)
    return Claim(
        "what withstands the step withstands the ball",
        f"The adversarially trained net errs no more under other attacks of eps = {eps:g} than under the step that it "
        f"was trained on (within {100 * NEAR:g} points).",
        "ours",
        "; ".join(f"{attack} {each.percent()}" for attack, each in found.items()),
        decide(worst.high <= first.low + NEAR, worst.low > first.high + NEAR),
        "one-step training teaches the net that step; see the evaluation, python evaluate.py, for what a net is worth"
        if worst.low > first.high + NEAR
        else "",
    )


def share_of_clean(rows: list[dict], alpha: float) -> list[Claim]:
    """Nothing where no other alpha was trained."""
    found = {
        row["alpha"]: Estimate(row["stepped"], row["stepped_low"], row["stepped_high"], row["n"])
        for row in rows
        if row["net"] != "maxout"
    }
    if len(found) == 1:
        return []
    own, best = found[alpha], min(found.values(), key=lambda each: each.value)
    return [
        Claim(
            "alpha",
            f"alpha = {alpha:g} works about as well as others (FGSM error within {100 * NEAR:g} points of the best).",
            f"{PAPER}, section 6: 0.5 was a first guess that worked well enough",
            "; ".join(f"alpha {value:g} {each.percent()}" for value, each in found.items()),
            decide(own.high <= best.low + NEAR, own.low > best.high + NEAR),
        )
    ]


def stopping(curves: list[dict], count: int) -> Claim:
    """Errors on the watched test images at the epochs that either validation error would choose."""
    curve = [row for row in curves if row["net"] == "adversarial"]
    chosen = {name: min(curve, key=lambda row: row[name]) for name in ("validation", "adversarial_validation")}
    n = min(count, WATCHED)
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
        apart(by_clean, by_hard),
        f"{len(curve)} epochs; the paper waits for a hundred without gain" if by_hard.low > by_clean.high else "",
    )
