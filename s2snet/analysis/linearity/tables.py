"""The tables of study=linearity, each from its parts: one function per table or per group of tables."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from s2snet.analysis import intervals
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.linearity import attacked, measures, paper_figures
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.rows import Rows, estimate, find
from s2snet.analysis.linearity.training import CURVE, MONITORED, Trained
from s2snet.attacks import pgd

FOLLOWED = ("maxout", "adversarial", "softmax", "tanh", "rbf")  # nets whose scores are followed along a line
TRACED = 3  # images whose scores are kept for the figure
EACH = 1000  # training images of a draw
SWEPT = ("softmax", "maxout", "adversarial", "signs", "uniform", "rbf", "tanh")  # nets attacked at all radii
COMPARED = ("maxout", "softmax", "rbf")  # nets whose wrong classes are compared
PGD_IMAGES, PGD_STEPS = 500, 40  # of the comparison with more than one step
ON_NOISE = ("maxout", "sigmoid", "softmax", "rbf", "adversarial", "tanh")


def lines(
    bench: Bench, nets: dict[str, Net], test: Sample, reach: float, points: int, count: int, segments: int
) -> Rows:
    """Fill `traces`, the scores of a few images along the sign direction, and return the rows of `lines`.

    They have what straight pieces leave unexplained of the scores, and how the prediction changes, per net and image.
    """
    right = ~measures.errors(nets["maxout"], test.images, test.labels)
    right &= ~measures.errors(nets["softmax"], test.images, test.labels)
    chosen = right.nonzero()[:count, 0]
    if not len(chosen):
        raise ValueError(
            "study=linearity: no test image is correctly classified by maxout and softmax; train longer (epochs)"
        )
    images, labels, index = test.images[chosen], test.labels[chosen], test.index[chosen.cpu()]
    offsets = torch.linspace(-reach, reach, points)
    followed = {name: nets[name] for name in FOLLOWED}
    facts = {"nets": followed, "images": images, "labels": labels, "reach": reach, "points": points}

    def traces() -> Iterator[dict[str, Any]]:
        for name in ("maxout", "tanh"):
            scores = measures.scores_along(nets[name], images[:TRACED], labels[:TRACED], offsets)
            for place, of_image in enumerate(scores):
                for offset, values in zip(offsets.tolist(), of_image, strict=True):
                    row = {"net": name, "image": int(index[place]), "label": int(labels[place]), "offset": offset}
                    yield row | {f"score {k}": value.item() for k, value in enumerate(values)}

    def unexplained() -> Iterator[dict[str, Any]]:
        for name in bench.track(followed, "scores along a direction"):
            scores = measures.scores_along(followed[name], images, labels, offsets).cpu().double().numpy()
            for place, curves in enumerate(scores):
                shares = measures.unexplained(curves.T, segments).mean(axis=0)
                predictions = curves.argmax(axis=1)[None]
                went = measures.stretches(predictions == int(labels[place]), predictions, offsets.numpy())
                row = {"net": name, "image": int(index[place])}
                row |= {f"left by {k + 1}": float(share) for k, share in enumerate(shares)}
                yield row | {key: float(value[0]) for key, value in went.items()}

    bench.rows("traces", traces, **facts)
    return bench.rows("lines", unexplained, segments=segments, **facts)


def two_classes(sample: Sample, pair: tuple) -> tuple[Tensor, Tensor]:
    """Return the images of two classes and their signs: +1 the second's, -1 the first's."""
    chosen = (sample.labels == pair[0]) | (sample.labels == pair[1])
    return sample.images[chosen], (2 * (sample.labels[chosen] == pair[1]) - 1).double()


def dimension(bench: Bench, eps: float, pair: tuple, scales: list[float], draws: int) -> Rows:
    """Return the rows of `dimension`: logistic regressions at several sizes, on `draws` parts of the images."""
    images, signs = two_classes(bench.images(split="train"), pair)

    def fitted() -> Iterator[dict[str, Any]]:
        generator = torch.Generator().manual_seed(bench.seed)
        order = torch.randperm(len(signs), generator=generator)
        for draw in bench.track(range(draws), "dimension"):
            chosen = order[draw::draws][:EACH]
            for scale in scales:
                row = {"draw": draw, "scale": scale, "images": len(chosen)}
                yield row | measures.growth(measures.resize(images[chosen], scale), signs[chosen], eps)

    return bench.rows("dimension", fitted, images=images, signs=signs, eps=eps, scales=scales, draws=draws)


def logistic(bench: Bench, eps: float, pair: tuple, epochs: int, test: Sample) -> tuple[Rows, Rows]:
    """Return the rows of `closed_form`, differences during training, and of `logistic`, three ways of training."""
    images, signs = two_classes(bench.images(split="train"), pair)
    test_images, test_signs = two_classes(test, pair)
    train_pixels, test_pixels = (part.flatten(1).double() for part in (images, test_images))
    facts = {"train": images, "signs": signs, "test": test_images, "test_signs": test_signs}
    facts |= {"eps": eps, "epochs": epochs, "seed": bench.seed}

    def over_training() -> Iterator[dict[str, Any]]:
        for step, places, weight, bias in measures.train_logistic(train_pixels, signs, "fgsm", eps, epochs, bench.seed):
            yield {"step": step} | measures.differences(weight, bias, train_pixels[places], signs[places], eps)

    def ways() -> Iterator[dict[str, Any]]:
        for loss in measures.LOGISTIC_LOSSES:
            *_, (_, _, weight, bias) = measures.train_logistic(train_pixels, signs, loss, eps, epochs, bench.seed)
            for part, x, y in (("train", train_pixels, signs), ("test", test_pixels, test_signs)):
                margins = y * (x @ weight + bias)
                l1 = weight.abs().sum().item()
                for attack, size in (("none", 0.0), ("fgsm", eps), ("fgsm clipped", eps)):
                    if attack == "fgsm clipped":
                        moved = (x - eps * y[:, None] * weight.sign()).clamp(0, 1)
                        wrong = y * (moved @ weight + bias) <= 0
                    else:
                        wrong = margins - size * l1 <= 0
                    error = intervals.share(int(wrong.sum()), len(y))
                    row = {"training": loss, "part": part, "attack": attack, "n": error.n, "error": error.value}
                    yield row | {"low": error.low, "high": error.high, "eps_l1": eps * l1}

    return bench.rows("closed_form", over_training, **facts), bench.rows("logistic", ways, **facts)


def errors(bench: Bench, nets: dict[str, Net], test: Sample, eps: float, radii: list[float]) -> Rows:
    """Return the rows of `errors`: every net on images crafted against itself, and some on images of another net."""
    facts = {"images": test.images, "labels": test.labels, "eps": eps}

    def key(judge: str, source: str, radius: float, clipped: bool) -> dict[str, Any]:
        return {"net": judge, "made_on": source, "eps": radius, "clipped": clipped}

    def on_itself(name: str) -> Iterator[dict[str, Any]]:
        net, given = nets[name], (test.images, test.labels)
        yield key(name, name, 0.0, False) | attacked.judge(net, *given)
        for radius in sorted({eps, *(radii if name in SWEPT else [])}):
            stepped = attacked.craft(net, *given, radius, False)
            yield key(name, name, radius, False) | attacked.judge(net, stepped, test.labels)
        stepped = attacked.craft(net, *given, eps, True)
        yield key(name, name, eps, True) | attacked.judge(net, stepped, test.labels)

    def across(source: str, judge: str) -> Iterator[dict[str, Any]]:
        for clipped in (False, True):
            images = attacked.craft(nets[source], test.images, test.labels, eps, clipped)
            yield key(judge, source, eps, clipped) | attacked.judge(nets[judge], images, test.labels)

    rows = []
    for name in bench.track([name for name in nets if not name.startswith("member ")], "errors"):
        own = radii if name in SWEPT else []
        rows += bench.rows("errors", lambda name=name: on_itself(name), name=name, net=nets[name], radii=own, **facts)
    for source, judge in (("maxout", "adversarial"), ("adversarial", "maxout"), ("maxout", "ensemble")):
        pair = {"source": nets[source], "judge": nets[judge], "names": [source, judge]}
        rows += bench.rows("errors", lambda pair=(source, judge): across(*pair), **pair, **facts)
    return rows


def curves(bench: Bench, trained: dict[str, Trained]) -> Rows:
    """Return the rows of `curves`: the errors of every net after each epoch."""

    def epochs() -> Iterator[dict[str, Any]]:
        for name, each in trained.items():
            for epoch, line in enumerate(each.curve.tolist(), 1):
                yield {"net": name, "epoch": epoch} | dict(zip(CURVE, line, strict=True))

    return bench.rows("curves", epochs, nets=trained)


def alphas(bench: Bench, errors: Rows, names: list[str], eps: float, alpha: float) -> Rows:
    """Return the rows of `alpha`: clean and stepped errors of the nets that differ in alpha; clean training has 1."""
    by_name = {"adversarial": alpha} | {name: float(name.split()[1]) for name in names if name.startswith("alpha ")}
    rows = []
    for name, value in sorted((by_name | {"maxout": 1.0}).items(), key=lambda item: item[1]):
        row = {"net": name, "alpha": value}
        for attack, radius in (("clean", 0.0), ("stepped", eps)):
            error = estimate(find(errors, name, name, radius, False))
            row |= {**error.columns(attack), "n": error.n}
        rows.append(row)
    return bench.rows("alpha", lambda: rows, rows=rows)


def many_steps(bench: Bench, nets: dict[str, Net], test: Sample, eps: float) -> Rows:
    """Return the rows of `many_steps`: one step, one clipped step, and PGD in the same ball, on the first images."""
    compared = {name: nets[name] for name in ("maxout", "adversarial")}

    def attacks() -> Iterator[dict[str, Any]]:
        images, labels = test.images[:PGD_IMAGES], test.labels[:PGD_IMAGES]
        for name, net in compared.items():
            for attack, clipped in (("one step", False), ("one step, clipped", True)):
                stepped = attacked.craft(net, images, labels, eps, clipped)
                yield {"net": name, "attack": attack} | attacked.judge(net, stepped, labels)
            adversarial = pgd(net, images, labels, eps=eps, norm="linf", steps=PGD_STEPS)
            yield {"net": name, "attack": f"PGD-{PGD_STEPS}"} | attacked.judge(net, adversarial, labels)

    return bench.rows("many_steps", attacks, nets=compared, images=test.images, labels=test.labels, eps=eps)


def agreement(bench: Bench, nets: dict[str, Net], test: Sample, eps: float) -> Rows:
    """Return the rows of `agreement`: how often nets make the same mistakes on maxout's images."""
    compared = {name: nets[name] for name in COMPARED}

    def mistakes() -> Iterator[dict[str, Any]]:
        images = attacked.craft(nets["maxout"], test.images, test.labels, eps, False)
        return attacked.agreements(compared, images, test.labels, "maxout")

    return bench.rows("agreement", mistakes, nets=compared, images=test.images, labels=test.labels, eps=eps)


def noise(bench: Bench, nets: dict[str, Net], test: Sample, eps: float, count: int, stepped: int) -> tuple[Rows, Rows]:
    """Return the rows of `rubbish`, false positives on N(0, 1) images, and of `fooling`, one step to each class."""
    shape, facts = test.images.shape[1:], {"shape": list(test.images.shape[1:]), "seed": bench.seed}
    judged = {name: nets[name] for name in ON_NOISE}

    def false_positives() -> Iterator[dict[str, Any]]:
        for name in bench.track(judged, "noise images"):
            yield {"net": name} | attacked.rubbish(judged[name], shape, count, bench.seed, bench.device)

    def steps() -> Iterator[dict[str, Any]]:
        for row in attacked.fooling(nets["maxout"], shape, stepped, eps, bench.seed, bench.device):
            yield {"net": "maxout"} | row

    rubbish = bench.rows("rubbish", false_positives, nets=judged, count=count, **facts)
    return rubbish, bench.rows("fooling", steps, net=nets["maxout"], count=stepped, eps=eps, **facts)


def paper(bench: Bench, eps: float, within: float) -> paper_figures.Ours:
    """Fill `paper`, each figure of the paper next to ours; return ours. Reads the tables of the other functions."""
    ours = paper_figures.ours(bench.tables, eps, min(len(bench.splits.train), MONITORED))
    known = {key: [each and list(vars(each).values()) for each in both] for key, both in ours.items()}
    tolerances = {key: paper_figures.tolerance(paper_figures.FIGURES[key], within) for key in ours}
    bench.rows("paper", lambda: paper_figures.rows(ours, within), ours=known, tolerances=tolerances)
    return ours
