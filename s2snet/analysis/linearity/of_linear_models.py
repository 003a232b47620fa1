"""What is claimed of linear models: growth with dimension, and the closed form of adversarial training."""

from collections.abc import Iterator

import torch
from torch import Tensor

from s2snet.analysis import intervals
from s2snet.analysis.bench import FAILS, HOLDS, UNDECIDED, Bench, Claim, Sample
from s2snet.analysis.linearity import logistic
from s2snet.analysis.linearity.dimension import growth, resized, slope
from s2snet.analysis.linearity.paper import PAPER
from s2snet.analysis.linearity.reading import estimate
from s2snet.analysis.rules import apart

EACH = 1000  # training images of a draw
EQUAL = 1e-6  # largest difference that counts as equal, of float64 numbers of order 1


def two_classes(sample: Sample, pair: tuple) -> tuple[Tensor, Tensor]:
    """The images of two classes and their signs: +1 the second's, -1 the first's."""
    chosen = (sample.labels == pair[0]) | (sample.labels == pair[1])
    return sample.images[chosen], (2 * (sample.labels[chosen] == pair[1]) - 1).double()


def of_dimension(bench: Bench, eps: float, pair: tuple, scales: list[float], draws: int) -> list[Claim]:
    """Table `dimension`: logistic regressions of the pair at several sizes, on `draws` parts of the training images."""
    images, signs = two_classes(bench.images(split="train"), pair)

    def made() -> Iterator[dict]:
        generator = torch.Generator().manual_seed(bench.seed)
        order = torch.randperm(len(signs), generator=generator)
        for draw in bench.each(range(draws), "dimension"):
            chosen = order[draw::draws][:EACH]
            for scale in scales:
                row = {"draw": draw, "scale": scale, "images": len(chosen)}
                yield row | growth(resized(images[chosen], scale), signs[chosen], eps)

    rows = bench.rows("dimension", made, images=images, signs=signs, eps=eps, scales=scales, draws=draws)
    parts = [[row for row in rows if row["draw"] == draw] for draw in range(draws)]

    def power(value) -> intervals.Estimate:
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
            "worst case beside random signs",
            "The worst signs gain on random ones with the square root of the dimension (power 0.4 to 0.6).",
            "ours",
            f"power {gain.text()}",
            _inside(gain, 0.4, 0.6),
        ),
    ]


def _inside(found: intervals.Estimate, low: float, high: float) -> str:
    """Holds where the whole interval is in the range, fails where none of it is."""
    if low <= found.low and found.high <= high:
        return HOLDS
    return FAILS if found.high < low or found.low > high else UNDECIDED


def of_logistic(bench: Bench, eps: float, pair: tuple, epochs: int, test: Sample) -> list[Claim]:
    """Tables `closed_form` (differences over training) and `logistic` (three ways of training), and their claims."""
    images, signs = two_classes(bench.images(split="train"), pair)
    others, other_signs = two_classes(test, pair)
    train, judge = (part.flatten(1).double() for part in (images, others))
    facts = {"train": images, "signs": signs, "test": others, "test_signs": other_signs}
    facts |= {"eps": eps, "epochs": epochs, "seed": bench.seed}

    def over_training() -> Iterator[dict]:
        for step, places, weight, bias in logistic.descend(train, signs, "fgsm", eps, epochs, bench.seed):
            yield {"step": step} | logistic.differences(weight, bias, train[places], signs[places], eps)

    def ways() -> Iterator[dict]:
        for loss in logistic.LOSSES:
            *_, (_, _, weight, bias) = logistic.descend(train, signs, loss, eps, epochs, bench.seed)
            for part, x, y in (("train", train, signs), ("test", judge, other_signs)):
                margins = y * (x @ weight + bias)
                l1 = weight.abs().sum().item()
                for attack, size in (("none", 0.0), ("fgsm", eps), ("fgsm clipped", eps)):
                    if attack == "fgsm clipped":
                        moved = (x - eps * y[:, None] * weight.sign()).clamp(0, 1)
                        wrong = y * (moved @ weight + bias) <= 0
                    else:
                        wrong = margins - size * l1 <= 0
                    found = intervals.share(int(wrong.sum()), len(y))
                    row = {"training": loss, "part": part, "attack": attack, "n": found.n, "error": found.value}
                    yield row | {"low": found.low, "high": found.high, "eps_l1": eps * l1}

    steps = bench.rows("closed_form", over_training, **facts)
    rows = bench.rows("logistic", ways, **facts)
    return [*_forms(steps), _decay(rows, eps)]


def _forms(steps: list[dict]) -> list[Claim]:
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


def _decay(rows: list[dict], eps: float) -> Claim:
    found = {(row["training"], row["part"], row["attack"]): row for row in rows}
    l1, fgsm = (found[loss, "train", "none"] for loss in ("l1", "fgsm"))
    text = "; ".join(
        f"{name} training error {estimate(found[loss, 'train', 'none']).percent()}, FGSM test error "
        f"{estimate(found[loss, 'test', 'fgsm']).percent()}"
        for name, loss in (("clean", "clean"), ("adversarial", "fgsm"), ("L1", "l1"))
    )
    return Claim(
        "L1 decay is not adversarial training",
        f"With the same coefficient eps = {eps:g}, L1 decay costs more training error than adversarial training, whose "
        "penalty vanishes as margins grow.",
        f"{PAPER}, section 5",
        text,
        apart(estimate(l1), estimate(fgsm)),
    )
