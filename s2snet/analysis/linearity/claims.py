"""The claims of study=linearity about lines, dimension, logistic regression and noise images. Imports no torch.

Those about errors under the step are in error_claims.py, those about the paper's figures in paper_figures.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from s2snet.analysis import intervals
from s2snet.analysis.claim import FAILS, HOLDS, Claim, above, below, exceeds, inside
from s2snet.analysis.linearity.paper_figures import PAPER
from s2snet.analysis.linearity.rows import Rows, estimate

STATED = 3  # pieces that the claim is about
FOLLOWED = ("maxout", "tanh", "rbf", "adversarial", "softmax")  # nets in the table `lines`
EQUAL = 1e-6  # largest difference that counts as equal, of float64 numbers of order 1
NONE = 0.01  # a share of errors that counts as none


def pieces(rows: Rows) -> list[Claim]:
    """Return the claims that maxout is closer to straight pieces than each control, image by image; from `lines`."""
    left = {name: [row[f"left by {STATED}"] for row in rows if row["net"] == name] for name in FOLLOWED}
    means = {name: intervals.mean(values) for name, values in left.items()}
    claims = []
    for control, what in (("tanh", "a net of saturating tanh units"), ("rbf", "the RBF's log p, which are parabolas")):
        verdict = above(intervals.difference(left[control], left["maxout"]))
        text = "; ".join(
            f"{name} {means[name].text(100, unit=' %')}" for name in ("maxout", control, "adversarial", "softmax")
        )
        claims.append(
            Claim(
                f"piecewise linear against {control}",
                f"Along the sign direction maxout's scores are closer to {STATED} straight pieces than {what} "
                f"(share of variance left by the best {STATED} lines).",
                f"{PAPER}, figure 4; the measure is ours",
                f"left unexplained: {text}",
                verdict,
            )
        )
    return claims


def stretches(rows: Rows, reach: float, classes: int) -> list[Claim]:
    """Return the claims that maxout is right only near 0, and that one wrong class covers a side; from `lines`."""
    of_net = [row for row in rows if row["net"] == "maxout"]
    far = intervals.mean([(row["right_up"] + row["right_down"]) / 2 for row in of_net])
    up, down = (intervals.mean([row[side] for row in of_net]) for side in ("right_up", "right_down"))
    around = intervals.median([row["right_around_0"] for row in of_net])
    wrong = intervals.median([row["longest_wrong"] for row in of_net])
    near = below(far, 1 / classes)
    return [
        Claim(
            "right only near 0",
            "Away from the image (offsets of 1 and more, in both directions) maxout is right no more often than by "
            "chance.",
            f"{PAPER}, figure 4; the measure is ours",
            f"right at {far.percent()} of the offsets, chance {100 / classes:.3g} %; with the gradient's sign "
            f"{up.percent()}, against it {down.percent()}; the median width of the right stretch around 0 is "
            f"{around.text()}, of {2 * reach:g}",
            near,
            "" if near == HOLDS else "the figure shows one image; against the sign the label's own score often rises",
        ),
        Claim(
            "wrong class is stable",
            "One and the same wrong class covers more than half of a side of the line.",
            f"{PAPER}, figure 4; the measure is ours",
            f"median of the longest stretch of one wrong class {wrong.text()}; a side is {reach:g}",
            above(wrong, reach / 2),
        ),
    ]


def dimension(rows: Rows) -> list[Claim]:
    """Return the claims about growth with the number of pixels, from the table `dimension`."""
    draws = sorted({row["draw"] for row in rows})
    parts = [[row for row in rows if row["draw"] == draw] for draw in draws]

    def power(value: Callable[[dict[str, Any]], float]) -> intervals.Estimate:
        return intervals.mean([slope([row["pixels"] for row in part], [value(row) for row in part]) for part in parts])

    worst = power(lambda row: row["worst"])
    weight = power(lambda row: row["weight"])
    margin = power(lambda row: row["worst"] / row["margin"])
    gain = power(lambda row: row["worst"] / row["random"])
    linear = worst.low <= 1.2 and worst.high >= 0.8
    return [
        Claim(
            "growth with dimension",
            "The change eps |w|_1 that a step of fixed eps can make grows linearly with the number of pixels "
            "(power 0.8 to 1.2 within the interval).",
            f"{PAPER}, section 3",
            f"power {worst.text()} of the pixels for trained models, draws of {parts[0][0]['images']} images; the mean "
            f"weight goes with power {weight.text()}, and eps |w|_1 over the median margin with {margin.text()}",
            HOLDS if linear else FAILS,
            ""
            if linear
            else "the paper holds the mean weight fixed (then the power is 1 by definition); training at another size "
            "of the same images shrinks the weights as pixels are added, because neighbours repeat each other",
        ),
        Claim(
            "worst case against random signs",
            "The lead of the worst signs over random ones grows with the square root of the dimension (power 0.4 to "
            "0.6).",
            "ours",
            f"power {gain.text()}",
            inside(gain, 0.4, 0.6),
        ),
    ]


def slope(pixels: list[float], values: list[float]) -> float:
    """Return the slope of log value over log pixels by least squares: the power with which a value grows."""
    return float(np.polyfit(np.log(pixels), np.log(values), 1)[0])


def closed_form(steps: Rows) -> list[Claim]:
    """Return the claims that FGSM training is training on the closed form, ours or as printed; from `closed_form`."""
    loss, gradient = (max(row[key] for row in steps) for key in ("loss", "gradient"))
    plus, minus = (
        max((row[key] for row in steps if row[key] == row[key]), default=float("nan"))  # NaN: a batch without the sign
        for key in ("printed_plus", "printed_minus")
    )
    n = f"n = {len(steps)} steps"
    return [
        Claim(
            "closed form",
            f"FGSM training of logistic regression is training on softplus(eps |w|_1 - y (w x + b)) (to {EQUAL:g}).",
            f"{PAPER}, section 5",
            f"largest difference of a loss {loss:.2g}, of a gradient {gradient:.2g} ({n})",
            HOLDS if max(loss, gradient) <= EQUAL else FAILS,
        ),
        Claim(
            "closed form as printed",
            f"The form that the paper prints, softplus(y (eps |w|_1 - w x - b)), is that loss for both labels "
            f"(to {EQUAL:g}).",
            f"{PAPER}, section 5",
            f"largest difference for y = +1 {plus:.2g}, for y = -1 {minus:.2g} ({n})",
            HOLDS if max(plus, minus) <= EQUAL else FAILS,
            "" if max(plus, minus) <= EQUAL else "a slip of sign: right for y = +1, and y belongs to w x + b alone",
        ),
    ]


def decay(rows: Rows, eps: float) -> Claim:
    """Return the claim that L1 decay is not adversarial training, from the table `logistic`."""
    errors = {(row["training"], row["part"], row["attack"]): estimate(row) for row in rows}
    l1, fgsm = (errors[loss, "train", "none"] for loss in ("l1", "fgsm"))
    text = "; ".join(
        f"{name} training error {errors[loss, 'train', 'none'].percent()}, FGSM test error "
        f"{errors[loss, 'test', 'fgsm'].percent()}"
        for name, loss in (("clean", "clean"), ("adversarial", "fgsm"), ("L1", "l1"))
    )
    return Claim(
        "L1 decay is not adversarial training",
        f"With the same coefficient eps = {eps:g}, L1 decay costs more training error than adversarial training, whose "
        "penalty vanishes as margins grow.",
        f"{PAPER}, section 5",
        text,
        exceeds(l1, fgsm),
    )


def noise(rows: Rows, steps: Rows, classes: list[str], eps: float) -> list[Claim]:
    """Return the claims about noise images, from the tables `rubbish` and `fooling`."""
    errors = {row["net"]: estimate(row) for row in rows}
    mean = intervals.mean([row["success"] for row in steps])
    worst = min(steps, key=lambda row: row["success"])
    before = np.mean([row["before"] for row in steps])
    others = [f"{name} {errors[name].percent()}" for name in ("softmax", "sigmoid", "adversarial", "tanh")]
    return [
        Claim(
            "noise is taken for a class",
            "Maxout gives some class a probability above one half on most N(0, 1) images.",
            f"{PAPER}, appendix",
            f"maxout {errors['maxout'].percent()}; {', '.join(others)}",
            above(errors["maxout"], 0.5),
        ),
        Claim(
            "RBF takes no noise for a class",
            f"The RBF net gives no class a probability above one half on N(0, 1) images (less than {100 * NONE:g} % of "
            "them).",
            f"{PAPER}, appendix",
            errors["rbf"].percent(),
            below(errors["rbf"], NONE),
        ),
        Claim(
            "one step from noise to any class",
            f"One sign step of eps = {eps:g} turns most N(0, 1) images into the target class (p > 1/2), "
            "averaged over the classes.",
            f"{PAPER}, appendix (CIFAR-10; mean 75.3 %, worst class 24.7 %)",
            f"mean {100 * mean.value:.1f} % ({100 * mean.low:.1f} to {100 * mean.high:.1f}, n = {mean.n} classes of "
            f"{worst['n']} images), {100 * before:.1f} % without the step; worst class "
            f"{classes[worst['class']]} with {100 * worst['success']:.1f} %",
            above(mean, 0.5),
        ),
    ]
