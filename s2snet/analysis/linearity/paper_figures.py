"""The paper's MNIST figures (Goodfellow, Shlens, Szegedy: arXiv 1412.6572), ours next to them, and the claims.

Imports no torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from s2snet.analysis.claim import FAILS, HOLDS, Claim
from s2snet.analysis.intervals import Estimate, share
from s2snet.analysis.linearity.rows import Rows, estimate, find

PAPER = "arXiv 1412.6572"
EPS = 0.25  # of all its MNIST figures
PIXELS = 784
Ours = dict[str, tuple[Estimate, Estimate | None]]  # figure: our estimate, and that under a clipped step if measured


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, a share; a lower bound if `at_least`."""

    text: str
    section: str
    value: float
    at_least: bool = False


FIGURES = {
    "softmax": Figure("softmax regression, FGSM: error", "section 4", 0.999),
    "softmax confidence": Figure("softmax regression, FGSM: confidence", "section 4", 0.793),
    "maxout": Figure("maxout, FGSM: error", "section 4", 0.894),
    "maxout confidence": Figure("maxout, FGSM: confidence", "section 4", 0.976),
    "maxout clean": Figure("maxout: clean error", "section 6", 0.0094),
    "logistic clean": Figure("logistic regression, 3 against 7: clean error", "section 5", 0.016),
    "logistic": Figure("logistic regression, 3 against 7, FGSM: error", "section 5", 0.99),
    "adversarial clean": Figure("adversarially trained maxout: clean error", "section 6", 0.0084),
    "adversarial": Figure("adversarially trained maxout, FGSM: error", "section 6", 0.179),
    "adversarial confidence": Figure("adversarially trained maxout, FGSM: confidence on mistakes", "section 6", 0.814),
    "old to new": Figure("FGSM images of the plain maxout on the adversarially trained: error", "section 6", 0.196),
    "new to old": Figure("FGSM images of the adversarially trained maxout on the plain: error", "section 6", 0.409),
    "signs": Figure("maxout trained on noise of ±eps, FGSM: error", "section 6", 0.862),
    "signs confidence": Figure("maxout trained on noise of ±eps, FGSM: confidence", "section 6", 0.973),
    "uniform": Figure("maxout trained on noise U(-eps, eps), FGSM: error", "section 6", 0.904),
    "uniform confidence": Figure("maxout trained on noise U(-eps, eps), FGSM: confidence", "section 6", 0.978),
    "l1": Figure("maxout with L1 decay 0.0025 on the first layer: training error", "section 5", 0.05, at_least=True),
    "rbf clean confidence": Figure("RBF: clean confidence", "section 7", 0.606),
    "rbf": Figure("RBF, FGSM: error", "section 7", 0.554),
    "rbf confidence": Figure("RBF, FGSM: confidence on mistakes", "section 7", 0.012),
    "softmax as maxout": Figure("softmax predicts maxout's class if maxout is wrong", "section 8", 0.546),
    "softmax as maxout, both": Figure("softmax predicts maxout's class if both are wrong", "section 8", 0.846),
    "rbf as maxout": Figure("RBF predicts maxout's class if maxout is wrong", "section 8", 0.160),
    "rbf as maxout, both": Figure("RBF predicts maxout's class if both are wrong", "section 8", 0.543),
    "rbf as softmax, both": Figure("RBF predicts softmax's class if both are wrong", "section 8", 0.536),
    "ensemble": Figure("ensemble of 12 maxout nets, FGSM on all: error", "section 9", 0.911),
    "ensemble by one": Figure("ensemble of 12 maxout nets, FGSM on one: error", "section 9", 0.879),
    "rubbish maxout": Figure("maxout on N(0, 1) images: some p > 1/2", "appendix", 0.9835),
    "rubbish sigmoid": Figure("maxout with a sigmoid top on N(0, 1) images: some p > 1/2", "appendix", 0.68),
    "rubbish softmax": Figure("softmax regression on N(0, 1) images: some p > 1/2", "appendix", 0.598),
    "rubbish rbf": Figure("RBF on N(0, 1) images: some p > 1/2", "appendix", 0.0),
}
# Where our estimates come from: (net, crafted against, whether attacked, measure) in the table `errors`,
IN_ERRORS = {
    "softmax": ("softmax", "softmax", True, "error"),
    "softmax confidence": ("softmax", "softmax", True, "confidence"),
    "maxout": ("maxout", "maxout", True, "error"),
    "maxout confidence": ("maxout", "maxout", True, "confidence"),
    "maxout clean": ("maxout", "maxout", False, "error"),
    "adversarial clean": ("adversarial", "adversarial", False, "error"),
    "adversarial": ("adversarial", "adversarial", True, "error"),
    "adversarial confidence": ("adversarial", "adversarial", True, "confidence_mistakes"),
    "old to new": ("adversarial", "maxout", True, "error"),
    "new to old": ("maxout", "adversarial", True, "error"),
    "signs": ("signs", "signs", True, "error"),
    "signs confidence": ("signs", "signs", True, "confidence"),
    "uniform": ("uniform", "uniform", True, "error"),
    "uniform confidence": ("uniform", "uniform", True, "confidence"),
    "rbf clean confidence": ("rbf", "rbf", False, "confidence"),
    "rbf": ("rbf", "rbf", True, "error"),
    "rbf confidence": ("rbf", "rbf", True, "confidence_mistakes"),
    "ensemble": ("ensemble", "ensemble", True, "error"),
    "ensemble by one": ("ensemble", "maxout", True, "error"),
}
# (first, second, among) in the table `agreement`, and the net in the table `rubbish`.
IN_AGREEMENT = {
    "softmax as maxout": ("maxout", "softmax", "first wrong"),
    "softmax as maxout, both": ("maxout", "softmax", "both wrong"),
    "rbf as maxout": ("maxout", "rbf", "first wrong"),
    "rbf as maxout, both": ("maxout", "rbf", "both wrong"),
    "rbf as softmax, both": ("softmax", "rbf", "both wrong"),
}
IN_RUBBISH = {f"rubbish {net}": net for net in ("maxout", "sigmoid", "softmax", "rbf")}


def ours(tables: dict[str, Rows], eps: float, monitored: int) -> Ours:
    """Return our estimate of each figure of the paper, and the one under a clipped step if that is measured.

    `monitored` training images are behind the curve of training errors.
    """
    estimates: Ours = {}
    for key, (net, source, attacked, measure) in IN_ERRORS.items():
        both = [find(tables["errors"], net, source, eps if attacked else 0.0, clipped) for clipped in (False, True)]
        free, clipped = (estimate(row, measure) if row[measure] is not None else None for row in both)
        if free:
            estimates[key] = free, clipped if attacked else None
    for key, pair in IN_AGREEMENT.items():
        for row in tables["agreement"]:
            if (row["first"], row["second"], row["among"]) == pair:
                estimates[key] = estimate(row, "same"), None
    for row in tables["rubbish"]:
        for key, net in IN_RUBBISH.items():
            if row["net"] == net:
                estimates[key] = estimate(row), None
    logistic = {row["attack"]: row for row in tables["logistic"] if (row["training"], row["part"]) == ("clean", "test")}
    estimates["logistic clean"] = estimate(logistic["none"]), None
    estimates["logistic"] = estimate(logistic["fgsm"]), estimate(logistic["fgsm clipped"])
    decayed = [row["train"] for row in tables["curves"] if row["net"] == "l1"]
    estimates["l1"] = share(round(min(decayed) * monitored), monitored), None
    return estimates


def rows(ours: Ours, within: float) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table `paper`."""
    for key, figure in FIGURES.items():
        if key in ours:
            free, clipped = ours[key]
            row = {"figure": key, "what": figure.text, "section": figure.section, "paper": figure.value}
            row |= {"found": free.value, "low": free.low, "high": free.high, "n": free.n}
            row |= {"clipped": clipped and clipped.value, "tolerance": tolerance(figure, within)}
            yield row | {"met": met(figure, free, within)}


def claims(ours: Ours, pixels: int, epochs: int, members: int, within: float) -> list[Claim]:
    """Return a claim per figure that was measured here; for the paper's own data and eps."""
    because = (
        f"{epochs} epochs with one seed, and no retraining on all 60,000 images; the paper names no optimiser, "
        "learning rate, depth or dropout, ours are the maxout paper's"
    )
    because += f"; {pixels} pixels with the padding instead of {PIXELS}" if pixels != PIXELS else ""
    more = {"ensemble": f"{members} nets instead of 12; ", "rbf": "the RBF's form and training are ours; "}
    return [claim(key, *ours[key], within, more.get(key.split()[0], "") + because) for key in FIGURES if key in ours]


def tolerance(figure: Figure, within: float) -> float:
    """Return the distance at which the figure is still met: `within`, or near 0 and 1 half of the distance to that end.

    It is at least half a point, so that 100.0 % meets 99.9 %, and 1.9 % does not meet 0.94 %.
    """
    return min(within, max(min(figure.value, 1 - figure.value) / 2, 0.005))


def met(figure: Figure, ours: Estimate, within: float) -> bool:
    """Return whether our interval comes within the tolerance of the paper's figure, or lies above its lower bound."""
    if figure.at_least:
        return ours.low > figure.value
    distance = tolerance(figure, within)
    return ours.low - distance <= figure.value <= ours.high + distance


def claim(key: str, ours: Estimate, clipped: Estimate | None, within: float, because: str) -> Claim:
    """Return the claim that a figure of the paper is met here, with the clipped attack's number if there is one."""
    figure = FIGURES[key]
    bound = "above " if figure.at_least else ""
    evidence = f"paper {bound}{100 * figure.value:.3g} %, here {ours.percent()}"
    if clipped is not None:
        evidence += f"; clipped to [0, 1] {clipped.percent()}"
    verdict = HOLDS if met(figure, ours, within) else FAILS
    return Claim(
        f"paper: {key}",
        f"{figure.text[0].upper()}{figure.text[1:]} {bound}{100 * figure.value:.3g} %.",
        f"{PAPER}, {figure.section}",
        evidence,
        verdict,
        "" if verdict == HOLDS else because,
    )
