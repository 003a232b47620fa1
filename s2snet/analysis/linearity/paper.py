"""The paper's MNIST figures (Goodfellow, Shlens, Szegedy: arXiv 1412.6572) and what it takes to have met one."""

from dataclasses import dataclass

from s2snet.analysis.bench import FAILS, HOLDS, Claim
from s2snet.analysis.intervals import Estimate

PAPER = "arXiv 1412.6572"
EPS = 0.25  # of all its MNIST figures
PIXELS = 784


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, a share. `at_least` says that the paper gives a lower bound."""

    says: str
    section: str
    value: float
    at_least: bool = False


# Which of our rows each is beside: study.py, `_beside`.
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
    "softmax as maxout": Figure("softmax says maxout's class where maxout is wrong", "section 8", 0.546),
    "softmax as maxout, both": Figure("softmax says maxout's class where both are wrong", "section 8", 0.846),
    "rbf as maxout": Figure("RBF says maxout's class where maxout is wrong", "section 8", 0.160),
    "rbf as maxout, both": Figure("RBF says maxout's class where both are wrong", "section 8", 0.543),
    "rbf as softmax, both": Figure("RBF says softmax's class where both are wrong", "section 8", 0.536),
    "ensemble": Figure("ensemble of 12 maxout nets, FGSM on all: error", "section 9", 0.911),
    "ensemble by one": Figure("ensemble of 12 maxout nets, FGSM on one: error", "section 9", 0.879),
    "rubbish maxout": Figure("maxout on N(0, 1) images: some p > 1/2", "appendix", 0.9835),
    "rubbish maxout confidence": Figure("maxout on N(0, 1) images: confidence on these", "appendix", 0.928),
    "rubbish sigmoid": Figure("maxout with a sigmoid top on N(0, 1) images: some p > 1/2", "appendix", 0.68),
    "rubbish softmax": Figure("softmax regression on N(0, 1) images: some p > 1/2", "appendix", 0.598),
    "rubbish rbf": Figure("RBF on N(0, 1) images: some p > 1/2", "appendix", 0.0),
}


def tolerance(figure: Figure, within: float) -> float:
    """How far from the figure still meets it: `within`, and near 0 and 1 half of the distance to that end.

    But half a point at least, so that 100.0 % meets 99.9 %, and 1.9 % does not meet 0.94 %.
    """
    return min(within, max(min(figure.value, 1 - figure.value) / 2, 0.005))


def met(figure: Figure, ours: Estimate, within: float) -> bool:
    """Whether our interval comes within the tolerance of the paper's figure, or lies beyond its lower bound."""
    if figure.at_least:
        return ours.low > figure.value
    apart = tolerance(figure, within)
    return ours.low - apart <= figure.value <= ours.high + apart


def claim(key: str, ours: Estimate, clipped: Estimate | None, within: float, because: str) -> Claim:
    """Whether a figure of the paper was met here, the clipped attack's number beside it where there is one."""
    figure = FIGURES[key]
    bound = "above " if figure.at_least else ""
    found = f"paper {bound}{100 * figure.value:.3g} %, here {ours.percent()}"
    if clipped is not None:
        found += f"; clipped to [0, 1] {clipped.percent()}"
    verdict = HOLDS if met(figure, ours, within) else FAILS
    return Claim(
        f"paper: {key}",
        f"{figure.says[0].upper()}{figure.says[1:]} {bound}{100 * figure.value:.3g} %.",
        f"{PAPER}, {figure.section}",
        found,
        verdict,
        "" if verdict == HOLDS else because,
    )
