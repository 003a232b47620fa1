"""The study `linearity`: Goodfellow's explanation of adversarial examples, measured (arXiv 1412.6572)."""

from s2snet.analysis.bench import Bench, Claim
from s2snet.analysis.linearity.of_errors import of_errors
from s2snet.analysis.linearity.of_linear_models import of_dimension, of_logistic
from s2snet.analysis.linearity.of_lines import of_lines
from s2snet.analysis.linearity.of_paper import of_paper
from s2snet.analysis.linearity.of_rubbish import of_rubbish
from s2snet.analysis.linearity.pictures import pictures
from s2snet.analysis.linearity.training import Recipe
from s2snet.analysis.linearity.zoo import zoo


def linearity(
    bench: Bench,
    *,
    eps: float = 0.25,
    radii: tuple = (0.05, 0.1, 0.15, 0.2, 0.3),
    epochs: int = 60,
    batch: int = 100,
    lr: float = 0.1,
    units: int = 80,
    pieces: int = 5,
    init: float = 0.05,
    alpha: float = 0.5,
    alphas: tuple = (0.25, 0.75),
    l1: float = 0.0025,
    members: int = 3,
    count: int | None = None,
    reach: float = 15.0,
    points: int = 121,
    lines: int = 100,
    segments: int = 4,
    pair: tuple = (3, 7),
    scales: tuple = (0.25, 0.5, 1.0, 2.0),
    draws: int = 5,
    rubbish: int = 10000,
    fooling: int = 500,
    within: float = 0.05,
) -> list[Claim]:
    """Trains the paper's networks on the bench's training images and measures its claims on the test images.

    Options: conf/study/linearity.yaml. It needs no weights and no defence. Steps are not clipped to [0, 1], as in the
    paper; the clipped numbers stand beside. Time is the training's: 6 + members nets for `epochs`, and 1 + alphas
    nets that take three times as long.
    """
    _check(bench, eps, points, segments, pair, members, within)
    plain = Recipe(epochs=epochs, eps=eps, alpha=alpha, lr=lr, batch=batch, seed=bench.seed)
    trained = zoo(bench, plain, list(alphas), l1, members, units, pieces, init)
    nets = {name: each.net for name, each in trained.items()}
    test = bench.images(count)

    claims = of_lines(bench, nets, test, reach, points, lines, segments)
    claims += of_dimension(bench, eps, pair, list(scales), draws)
    claims += of_logistic(bench, eps, pair, epochs, test)
    claims += of_errors(bench, trained, test, eps, list(radii), alpha)
    claims += of_rubbish(bench, nets, test, eps, rubbish, fooling)
    claims += of_paper(bench, eps, epochs, members, within)
    pictures(bench, nets, test, eps)
    return claims


linearity.version = 1


def _check(bench: Bench, eps: float, points: int, segments: int, pair: tuple, members: int, within: float) -> None:
    """ValueError, in one line, for options that no measurement can follow."""
    classes = len(bench.classes)
    if eps <= 0:
        raise ValueError(f"study.linearity.eps={eps}: larger than 0")
    if points % 2 == 0 or points < 3:
        raise ValueError(f"study.linearity.points={points}: an odd number from 3 on, so that 0 is among them")
    if segments < 3:
        raise ValueError(f"study.linearity.segments={segments}: at least 3, which the claim is about")
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= k < classes for k in pair):
        raise ValueError(f"study.linearity.pair={list(pair)}: two classes of 0 to {classes - 1}")
    if members < 2:
        raise ValueError(f"study.linearity.members={members}: an ensemble has at least 2")
    if not 0 <= within < 1:
        raise ValueError(f"study.linearity.within={within}: a share, 0 to 1")
