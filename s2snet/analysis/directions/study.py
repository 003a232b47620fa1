"""Directions and subspaces (Jetley, Lord, Torr: arXiv 1807.04200): is a classifier attacked along what it uses?

Per class, the directions of largest mean curvature are computed and joined into subspaces. Then scores, labels,
accuracy and attacks are measured along and within them, with random subspaces as a control. The projection onto one of
them is saved as a purifier.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s2snet.analysis import intervals
from s2snet.analysis.batched import logits, right
from s2snet.analysis.bench import Bench
from s2snet.analysis.claim import FAILS, Claim
from s2snet.analysis.directions import claims, measures
from s2snet.analysis.directions.measures import BASES, CURVED, KINDS, Spans
from s2snet.config.choices import choose
from s2snet.models.folded import folded
from s2snet.store import weights

VERSION = 1
POINTS = 9  # of a trace, from -reach to reach; the middle one is 0
LINES = 12  # images in the figure of traces


class Labelled(NamedTuple):
    """Images [n, C, H, W] in [0, 1], their labels, the classifier's own predictions, and their indices."""

    images: Tensor
    labels: Tensor
    own: Tensor
    index: Tensor

    def spread(self, count: int) -> "Labelled":
        """Return `count` of them, evenly spread."""
        chosen = _evenly(len(self.images), count)
        return Labelled(*(part[chosen] for part in self))


def run(
    bench: Bench,
    *,
    samples: int = 30,
    k: int = 16,
    steps: int = 10,
    overshoot: float = 0.05,
    inward: float = 0.8,
    h: float | None = None,
    strict: bool = False,
    smoothing: float = 0.0,
    tol: float = 1e-5,
    bases: Sequence[str] = ("most", "least", "first", "last", "attacks", "random"),
    dimensions: Sequence[int] = (10, 40, 80, 160, 320, 640, 960),
    images: int = 500,
    measured: int = 100,
    attacked: int = 40,
    confined_steps: int = 30,
    budget: float = 2.0,
    perturbations: int = 200,
    traced: int = 4,
    reach: float = 0.106,
    universal_size: float = 0.04,
    universals: int = 5,
    purifier_basis: str = "least",
    purifier_share: float = 0.94,
) -> list[Claim]:
    """Return claims about the classifier of the defence `none`; conf/study/directions.yaml explains the options.

    Saves the purifier of defence=[subspace]. Cost: about 15 k x 2 samples forwards and backwards per class for the
    curvature, and less than that for all the rest.
    """
    _check(k, bases, traced, purifier_basis, purifier_share)
    model = bench.defended("none").classifier
    train = _images(bench, model, "train", max(10 * samples * 4, images, perturbations, universals))
    test = _images(bench, model, "test", max(images, measured, attacked))
    counts = _per_class(dimensions, len(bench.classes), train.images[0].numel())
    pixels = train.images[0].numel()
    (kept,) = _per_class([int(purifier_share * pixels)], len(bench.classes), pixels)
    most_directions = {"attacks": perturbations // len(bench.classes), **dict.fromkeys(CURVED, k)}
    if kept > most_directions.get(purifier_basis, kept):
        raise _too_few(purifier_share, purifier_basis, kept * len(bench.classes))
    few = test.spread(measured)
    facts: dict[str, Any] = {"model": model, "seed": bench.seed, "train": train.images, "test": test.images}

    options = {"samples": samples, "k": k, "steps": steps, "overshoot": overshoot, "inward": inward, "h": h}
    options |= {"strict": strict, "smoothing": smoothing, "tol": tol}
    classes = []
    for c in bench.track(range(len(bench.classes)), "curvature toward each class"):
        make = partial(_class_pairs, model, train, c, bench.seed, **options)
        classes.append(bench.tensors(f"class-{c}", make, **facts, **options, target=c))
    curved = claims.curved([float(pairs["turn"]) for pairs in classes])
    if curved.verdict == FAILS:
        return [curved]
    fewest = min(len(pairs["curvature"]) for pairs in classes)
    if fewest < traced:
        raise ValueError(
            f"study=directions: Lanczos found {fewest} of k={k} pairs to tol={tol:g}, and traced={traced} needs as "
            "many; a larger study.directions.tol finds more"
        )
    pairs = bench.rows("pairs", lambda: _pair_rows(classes), classes=classes)

    more = train.spread(perturbations)
    free = bench.tensors(
        "free",
        lambda: {
            "train": measures.free_perturbations(model, more.images, more.own),
            "test": measures.free_perturbations(model, few.images, few.own),
        },
        **facts, counts=[perturbations, measured],
    )  # fmt: skip
    spans = Spans(classes, free["train"], bench.seed)
    facts |= {"classes": classes, "free": free}

    way = {"count": traced, "reach": reach}
    traces = bench.rows("traces", lambda: _trace_rows(model, few, spans, **way), **facts, **way, n=measured)
    bench.rows("lines", lambda: _line_rows(model, few.spread(LINES), spans, reach), **facts, reach=reach, n=measured)

    size = {"size": universal_size * train.images[0].numel() ** 0.5, "count": universals}
    shifts = bench.tensors(
        "universals", lambda: _universals(model, train.spread(images), **size), **facts, **size, n=images
    )
    constants = bench.rows(
        "constants",
        lambda: _constant_rows(model, few, spans, shifts["shifts"], size["size"], traced),
        **facts, **size, traced=traced, n=measured,
    )  # fmt: skip

    subspaces = []
    cheap = budget * float(free["test"].flatten(1).norm(dim=1).median())
    limits = {"cheap": cheap, "steps": confined_steps, "images": images, "attacked": attacked}
    for basis in bases:
        for count in bench.track([n for n in counts if spans.has(basis, n)], f"subspaces of {basis}"):
            make = partial(_subspace_rows, model, train, test, spans, basis, count, **limits)
            subspaces += bench.rows("subspaces", make, **facts, **limits, how=basis, count=count)
    components = bench.rows(
        "components",
        lambda: _component_rows(spans, bases, counts, free["test"], shifts["shifts"]),
        **facts, bases=list(bases), counts=counts, shifts=shifts,
    )  # fmt: skip

    if not spans.has(purifier_basis, kept):  # pairs that did not converge, perturbations that failed
        raise _too_few(purifier_share, purifier_basis, kept * len(classes))
    purifier = measures.projection(spans.basis(purifier_basis, kept), train.images)
    bench.save_purifier("subspace", purifier, classifier=weights.fingerprint(model), basis=purifier_basis)
    _add_pictures(bench, spans, few, purifier, shifts["shifts"])
    whole = test.spread(images)
    clean = intervals.share(int((whole.own == whole.labels).sum()), len(whole.own))
    return [
        curved,
        claims.one_matrix(pairs),
        *claims.along_directions(traces),
        *claims.constant_steps(constants),
        *claims.components(components, spans.pairs),
        *claims.in_subspaces(subspaces, spans.pairs, clean, cheap, budget),
    ]


def _check(k: int, bases: Sequence[str], traced: int, basis: str, share: float) -> None:
    """ValueError, in one line, for options that exclude each other."""
    for name in (*bases, basis):
        choose("study.directions.bases", name, BASES)
    if not 1 <= traced <= k:
        raise ValueError(f"study.directions.traced={traced}: from 1 to k={k}")
    if not 0 < share <= 1:
        raise ValueError(f"study.directions.purifier_share={share}: above 0, and at most 1")
    for name in ("most", "random"):
        if name not in bases:
            raise ValueError(f"study.directions.bases={list(bases)}: the claims need {name} among them")


def _too_few(share: float, basis: str, count: int) -> ValueError:
    """Return the error for a purifier whose basis has fewer directions than it keeps."""
    return ValueError(
        f"study.directions.purifier_share={share:g}: basis {basis} has fewer than {count} directions; most, least and "
        "random have all"
    )


def _per_class(dimensions: Sequence[int], classes: int, pixels: int) -> list[int]:
    """Return the directions per class of subspaces of about these dimensions: at least one, at most as many as fit."""
    if not dimensions or min(dimensions) < 1:
        raise ValueError(f"study.directions.dimensions={list(dimensions)}: some numbers above 0")
    return sorted({min(max(1, d // classes), pixels // classes) for d in dimensions})


def _evenly(total: int, count: int) -> Tensor:
    """Return `count` evenly spread positions among `total`, or all if there are fewer: data may be sorted by class."""
    return torch.linspace(0, total - 1, min(count, total)).long()


def _images(bench: Bench, model: nn.Module, split: str, count: int) -> Labelled:
    source = getattr(bench.splits, split)
    if len(source) < 2:
        raise ValueError(f"study=directions: data={bench.data} has {len(source)} {split} images")
    items = [source[place] for place in _evenly(len(source), count).tolist()]
    images = torch.stack([item[0] for item in items]).to(bench.device)
    labels, index = (torch.tensor([item[part] for item in items]).to(bench.device) for part in (1, 2))
    return Labelled(images, labels, logits(model, images).argmax(dim=1), index)


def _class_pairs(
    model: nn.Module, train: Labelled, target: int, seed: int, samples: int, k: int, **options: Any
) -> dict[str, Tensor]:
    """Return the eigenpairs of one class, how far the gradient turns, and the number of points."""
    draw = torch.Generator().manual_seed(seed * 1000 + target)
    order = torch.randperm(len(train.images), generator=draw).to(train.own.device)
    order = order[train.own[order] != target][: 10 * samples]
    deepfool = {name: options[name] for name in ("steps", "overshoot")}
    start, r, labels = measures.reach_class(
        model, train.images[order], train.own[order], target, count=samples, **deepfool
    )
    if len(start) < 2:
        raise ValueError(
            f"study=directions: DeepFool reached class {target} from {len(start)} of {len(order)} training images; "
            f"more than study.directions.steps={options['steps']} are needed"
        )
    points = start + options["inward"] * r
    noise = torch.randn(points.shape, generator=draw).to(points)
    h = options["h"] or measures.step_length(train.images)
    fast = folded(model, points[:2])
    hessian = measures.MeanHessian(fast, points + options["smoothing"] * noise, labels, target, h, options["strict"])
    turn = hessian.turn(seed)
    facts = {"turn": torch.tensor(turn), "points": torch.tensor(len(points)), "h": torch.tensor(h)}
    if turn < claims.ZERO:
        return facts
    return facts | measures.eigenpairs(hessian, k, options["tol"], seed)


def _pair_rows(classes: list[dict[str, Tensor]]) -> Iterator[dict[str, Any]]:
    for c, pairs in enumerate(classes):
        for rank in range(len(pairs["curvature"])):
            row = {name: pairs[name][rank] for name in ("curvature", "eigenvalues", "residual")}
            yield {"class": c, "rank": rank, **row, "points": pairs["points"], "h": pairs["h"]}


def _trace_rows(model: nn.Module, few: Labelled, spans: Spans, count: int, reach: float) -> Iterator[dict[str, Any]]:
    """Yield what all images do along each direction, a row per length s (root mean square over pixels)."""
    sizes = torch.linspace(-reach, reach, POINTS)
    for kind, c, rank, vector in spans.traced(count):
        scores = measures.traced_logits(model, few.images, vector, sizes * len(vector) ** 0.5)
        score, labels = scores[:, :, c], scores.argmax(dim=2)
        start = score[POINTS // 2]
        for place, s in enumerate(sizes.tolist()):
            shares = torch.bincount(labels[place], minlength=scores.shape[2]) / len(few.images)
            bend = score[place] + score[POINTS - 1 - place] - 2 * start
            yield {
                "kind": kind, "class": c, "rank": rank, "s": s,
                "move": (score[place] - start).abs().mean(), "bend": bend.mean() / 2,
                "share": shares[c], "top_class": shares.argmax(), "top_share": shares.max(), "n": len(few.images),
            }  # fmt: skip


def _line_rows(model: nn.Module, few: Labelled, spans: Spans, reach: float) -> Iterator[dict[str, Any]]:
    """Yield the score of class 0 along its first direction of each kind, for each image."""
    sizes = torch.linspace(-reach, reach, 4 * POINTS - 3)
    for kind in KINDS:
        vector = spans.vectors(kind, 1)[:, 0]
        scores = measures.traced_logits(model, few.images, vector, sizes * len(vector) ** 0.5)[:, :, 0]
        for image, line in zip(few.index.tolist(), scores.T, strict=True):
            for s, score in zip(sizes.tolist(), line.tolist(), strict=True):
                yield {"kind": kind, "image": image, "s": s, "score": score}


def _universals(model: nn.Module, train: Labelled, size: float, count: int) -> dict[str, Tensor]:
    """Return universal perturbations [count, C, H, W], the j-th from every count-th training image from j on."""
    parts = [(train.images[j::count], train.own[j::count]) for j in range(count)]
    shifts = [measures.universal_perturbation(model, images, own, size) for images, own in parts]
    return {"shifts": torch.stack(shifts)}


def _constant_rows(
    model: nn.Module, few: Labelled, spans: Spans, shifts: Tensor, size: float, count: int
) -> Iterator[dict[str, Any]]:
    """Yield the share of labels that a constant shift changes: along directions, of the better sign; universal ones."""
    for kind, c, rank, vector in spans.traced(count):
        share = max(
            measures.label_changes(model, few.images, few.own, sign * size * vector).double().mean() for sign in (1, -1)
        )
        yield {"kind": kind, "class": c, "rank": rank, "changed": share, "n": len(few.images)}
    for number, shift in enumerate(shifts):
        share = measures.label_changes(model, few.images, few.own, shift).double().mean()
        yield {"kind": "universal", "class": None, "rank": number, "changed": share, "n": len(few.images)}


def _subspace_rows(
    model: nn.Module, train: Labelled, test: Labelled, spans: Spans, name: str, count: int,
    cheap: float, steps: int, images: int, attacked: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one row: the accuracy on what a subspace keeps of images, and how far DeepFool has to go inside it."""
    basis = spans.basis(name, count)
    purifier = measures.projection(basis, train.images)
    row: dict[str, Any] = {"basis": name, "per_class": count, "dimensions": basis.shape[1]}
    for split, part in (("train", train.spread(images)), ("test", test.spread(images))):
        kept = right(model, torch.cat([purifier(some) for some in part.images.split(256)]), part.labels)
        row |= {f"{split}_right": int(kept.sum()), f"{split}_n": len(kept), f"{split}_accuracy": kept.double().mean()}
    few = test.spread(attacked)
    length = measures.confined_lengths(model, few.images, few.own, basis, steps)
    median = float(length.median())
    row |= {"cheap": int((length <= cheap).sum()), "reached": int(length.isfinite().sum()), "attacked": len(length)}
    return [row | {"median_length": median if median < float("inf") else None}]


def _component_rows(
    spans: Spans, bases: Sequence[str], counts: Sequence[int], r: Tensor, shifts: Tensor
) -> Iterator[dict[str, Any]]:
    """Yield the mean share of length that free and universal perturbations have in each subspace."""
    for name in bases:
        for count in (n for n in counts if spans.has(name, n)):
            basis = spans.basis(name, count)
            for kind, vectors in (("attack", r), ("universal", shifts)):
                parts = measures.share_within(basis, vectors.cpu()[vectors.cpu().flatten(1).norm(dim=1) > 0])
                if not len(parts):
                    continue
                mean = intervals.mean(parts)
                row = {"of": kind, "basis": name, "per_class": count, "dimensions": basis.shape[1]}
                yield row | {"share": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}


def _add_pictures(bench: Bench, spans: Spans, few: Labelled, purifier: nn.Module, shifts: Tensor) -> None:
    shape = few.images.shape[1:]
    shown = bench.classes[:10]
    rows = [
        spans.vectors(kind, 1)[:, : len(shown)].T.reshape(-1, *shape).float() for kind in ("first", "last", "least")
    ]
    bench.add_grid(
        "directions", torch.stack(rows), ["most convex", "most concave", "least"], shown,
        "One direction of each class", "The score of the column's class bends most, and least, along these.",
        signed=("most convex", "most concave", "least"),
    )  # fmt: skip
    images = few.images[:10]
    kept = purifier(images).clamp(0, 1)
    bench.add_grid(
        "kept", torch.stack([images, kept]), ["image", "kept"], [bench.classes[c] for c in few.labels[:10].tolist()],
        f"What the purifier's {purifier.basis.shape[1]} dimensions keep",
    )  # fmt: skip
    bench.add_grid(
        "universals", shifts[None], ["universal"], [str(number) for number in range(len(shifts))],
        "Universal perturbations", "Each from another part of the training images.", signed=("universal",),
    )  # fmt: skip
