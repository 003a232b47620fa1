"""Goodfellow's linear explanation of adversarial examples, measured (arXiv 1412.6572)."""

import torch

from s2snet.analysis import intervals
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.claim import Claim
from s2snet.analysis.linearity import attacked, claims, error_claims, measures, paper_figures, tables
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.training import MONITORED, Recipe, Trained, train_all

VERSION = 1
PICTURED = 5  # images in the grid of steps
PICTURED_NETS = ("softmax", "maxout", "adversarial", "rbf")


def run(
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
    """Train the paper's networks on the bench's training images and return its claims, measured on the test images.

    conf/study/linearity.yaml explains the options. It needs no weights and no defence. Steps are not clipped to [0, 1],
    as in the paper; clipped numbers are reported too. The time is that of training: 6 + members nets for `epochs`, and
    1 + alphas nets that take three times as long.
    """
    _check(bench, eps, points, segments, pair, members, within)
    plain = Recipe(epochs=epochs, eps=eps, alpha=alpha, lr=lr, batch=batch, seed=bench.seed)
    trained = train_all(bench, plain, list(alphas), l1, members, units, pieces, init)
    nets: dict[str, Net] = {name: each.net for name, each in trained.items()}
    test = bench.images(count)

    line_rows = tables.lines(bench, nets, test, reach, points, lines, segments)
    dimension_rows = tables.dimension(bench, eps, pair, list(scales), draws)
    closed_form_rows, logistic_rows = tables.logistic(bench, eps, pair, epochs, test)
    about_errors = _error_claims(bench, trained, nets, test, eps, list(radii), alpha)
    noise_rows, step_rows = tables.noise(bench, nets, test, eps, rubbish, fooling)
    ours = tables.paper(bench, eps, within)
    _add_pictures(bench, nets, test, eps)

    about_paper = []
    if bench.data == "mnist" and eps == paper_figures.EPS:
        pixels = bench.splits.test[0][0].numel()
        about_paper = paper_figures.claims(ours, pixels, epochs, members, within)
    return [
        *claims.pieces(line_rows),
        *claims.stretches(line_rows, reach, len(bench.classes)),
        *claims.dimension(dimension_rows),
        *claims.closed_form(closed_form_rows),
        claims.decay(logistic_rows, eps),
        *about_errors,
        *claims.noise(noise_rows, step_rows, bench.classes, eps),
        *about_paper,
    ]


def _check(bench: Bench, eps: float, points: int, segments: int, pair: tuple, members: int, within: float) -> None:
    """ValueError, in one line, for options that are out of range."""
    classes = len(bench.classes)
    if eps <= 0:
        raise ValueError(f"study.linearity.eps={eps}: above 0")
    if points % 2 == 0 or points < 3:
        raise ValueError(f"study.linearity.points={points}: an odd number of at least 3, so that 0 is among them")
    if segments < 3:
        raise ValueError(f"study.linearity.segments={segments}: at least 3, as the claim is about 3")
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= k < classes for k in pair):
        raise ValueError(f"study.linearity.pair={list(pair)}: two different classes from 0 to {classes - 1}")
    if members < 2:
        raise ValueError(f"study.linearity.members={members}: at least 2, for an ensemble")
    if not 0 <= within < 1:
        raise ValueError(f"study.linearity.within={within}: a share, at least 0 and below 1")


def _error_claims(
    bench: Bench,
    trained: dict[str, Trained],
    nets: dict[str, Net],
    test: Sample,
    eps: float,
    radii: list[float],
    alpha: float,
) -> list[Claim]:
    """Fill the tables about errors under the step, and return their claims."""
    members = [net for name, net in nets.items() if name == "maxout" or name.startswith("member ")]
    nets = {**nets, "ensemble": attacked.Ensemble(members).eval()}
    errors = tables.errors(bench, nets, test, eps, radii)
    adversarial, plain = (
        measures.errors(nets[name], test.images, test.labels).cpu().numpy() for name in ("adversarial", "maxout")
    )
    return error_claims.all_claims(
        errors,
        curves=tables.curves(bench, trained),
        alphas=tables.alphas(bench, errors, list(trained), eps, alpha),
        many_steps=tables.many_steps(bench, nets, test, eps),
        agreement=tables.agreement(bench, nets, test, eps),
        clean_change=intervals.difference(adversarial, plain),
        monitored=min(len(bench.splits.test), MONITORED),
        classes=len(bench.classes),
        eps=eps,
        alpha=alpha,
    )


def _add_pictures(bench: Bench, nets: dict[str, Net], test: Sample, eps: float) -> None:
    """Add `steps`, each net's own step on the first images, and `fooled`, the steps from noise to each class."""
    images, labels = test.images[:PICTURED], test.labels[:PICTURED]
    columns, cells = ["clean"], [images]
    for name in PICTURED_NETS:
        step = measures.direction(nets[name].cost, images, labels)
        columns += [f"step, {name}", f"image, {name}"]
        cells += [step, (images + eps * step).clamp(0, 1)]
    names = [f"{bench.classes[label]}, image {index}" for label, index in zip(labels, test.index, strict=False)]
    bench.add_grid(
        "steps",
        torch.stack(cells, dim=1),
        names,
        columns,
        f"One sign step of eps = {eps:g} against each net",
        "Clipped to [0, 1] for display only.",
        signed=tuple(column for column in columns if column.startswith("step")),
    )
    noise = next(attacked.normal(test.images.shape[1:], 1, bench.seed, bench.device))
    steps = [attacked.step_toward(nets["maxout"], noise, target, eps) - noise for target in range(len(bench.classes))]
    reached = [measures.probabilities(nets["maxout"], noise + step)[0, k].item() for k, step in enumerate(steps)]
    bench.add_grid(
        "fooled",
        torch.stack(steps, dim=1),
        ["step"],
        [f"{name}: {100 * p:.0f} %" for name, p in zip(bench.classes, reached, strict=True)],
        f"The step of eps = {eps:g} from one noise image to each class",
        "With maxout's probability of the class after the step.",
        signed=("step",),
    )
