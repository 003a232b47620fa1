"""What is claimed of scores along the fixed sign direction: straight pieces, right only near 0, wrong for long."""

from collections.abc import Iterator

import torch

from s2snet.analysis import intervals
from s2snet.analysis.bench import HOLDS, Bench, Claim, Sample
from s2snet.analysis.linearity.lines import along, stretches, unexplained
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.paper import PAPER
from s2snet.analysis.linearity.steps import errors
from s2snet.analysis.rules import above, below

FOLLOWED = ("maxout", "adversarial", "softmax", "tanh", "rbf")
STATED = 3  # pieces that the claim is about
SHOWN = 3  # images whose scores are kept for the figure


def of_lines(
    bench: Bench, nets: dict[str, Net], test: Sample, reach: float, points: int, count: int, segments: int
) -> list[Claim]:
    """Tables `traces` (scores of a few images), `pieces` (what lines leave unexplained), `stretches`; their claims."""
    right = ~errors(nets["maxout"], test.images, test.labels)
    right &= ~errors(nets["softmax"], test.images, test.labels)
    chosen = right.nonzero()[:count, 0]
    if not len(chosen):
        raise ValueError("study=linearity: no test image is right under maxout and softmax; train longer (epochs)")
    images, labels, index = test.images[chosen], test.labels[chosen], test.index[chosen.cpu()]
    offsets = torch.linspace(-reach, reach, points)
    followed = {name: nets[name] for name in FOLLOWED}
    facts = {"nets": followed, "images": images, "labels": labels, "reach": reach, "points": points}

    def traces() -> Iterator[dict]:
        for name in ("maxout", "tanh"):
            scores = along(nets[name], images[:SHOWN], labels[:SHOWN], offsets)
            for place, of_image in enumerate(scores):
                for offset, values in zip(offsets.tolist(), of_image, strict=True):
                    row = {"net": name, "image": int(index[place]), "label": int(labels[place]), "offset": offset}
                    yield row | {f"score {k}": value.item() for k, value in enumerate(values)}

    def left() -> Iterator[dict]:
        for name in bench.each(followed, "scores along a direction"):
            scores = along(followed[name], images, labels, offsets).cpu().double().numpy()
            for place, curves in enumerate(scores):
                shares = unexplained(curves.T, segments).mean(axis=0)
                went = _stretch(curves, int(labels[place]), offsets)
                row = {"net": name, "image": int(index[place])}
                yield row | {f"left by {k + 1}": float(share) for k, share in enumerate(shares)} | went

    bench.rows("traces", traces, **facts)
    rows = bench.rows("lines", left, segments=segments, **facts)
    return [*_pieces(rows), *_stretches(rows, reach, len(bench.classes))]


def _stretch(curves, label: int, offsets: torch.Tensor) -> dict[str, float]:
    said = curves.argmax(axis=1)[None]
    return {key: float(value[0]) for key, value in stretches(said == label, said, offsets.numpy()).items()}


def _pieces(rows: list[dict]) -> list[Claim]:
    """Piecewise linear: maxout's curves leave less than those of each control, image by image."""
    left = {name: [row[f"left by {STATED}"] for row in rows if row["net"] == name] for name in FOLLOWED}
    found = {name: intervals.mean(values) for name, values in left.items()}
    claims = []
    for control, what in (("tanh", "a net of saturating tanh units"), ("rbf", "the RBF's log p, which are parabolas")):
        apart = intervals.mean([b - a for a, b in zip(left["maxout"], left[control], strict=True)])
        verdict = above(apart)
        text = "; ".join(
            f"{name} {found[name].text(100, unit=' %')}" for name in ("maxout", control, "adversarial", "softmax")
        )
        claims.append(
            Claim(
                f"piecewise linear, beside {control}",
                f"Along the sign direction maxout's scores are closer to {STATED} straight pieces than {what} "
                f"(share of variance left by the best {STATED} lines).",
                f"{PAPER}, figure 4; the measure is ours",
                f"left unexplained: {text}",
                verdict,
            )
        )
    return claims


def _stretches(rows: list[dict], reach: float, classes: int) -> list[Claim]:
    """Right only near 0, and one wrong class for long: of maxout, on the images that it has right."""
    of_net = [row for row in rows if row["net"] == "maxout"]
    far = intervals.mean([(row["right_up"] + row["right_down"]) / 2 for row in of_net])
    up, down = (intervals.mean([row[side] for row in of_net]) for side in ("right_up", "right_down"))
    around = intervals.median([row["right_around_0"] for row in of_net])
    wrong = intervals.median([row["longest_wrong"] for row in of_net])
    near = below(far, 1 / classes)
    return [
        Claim(
            "right only near 0",
            "Away from the image (offsets of 1 and more, both senses) maxout is right no more often than by chance.",
            f"{PAPER}, figure 4; the measure is ours",
            f"right at {far.percent()} of the offsets, chance {100 / classes:.3g} %; with the gradient's sign "
            f"{up.percent()}, against it {down.percent()}; the right stretch around 0 is {around.text()} wide in the "
            f"median, of {2 * reach:g}",
            near,
            "" if near == HOLDS else "the figure shows one image; against the sign the label's own score often rises",
        ),
        Claim(
            "wrong class is stable",
            "One and the same wrong class covers more than half of a side of the line.",
            f"{PAPER}, figure 4; the measure is ours",
            f"longest stretch of one wrong class {wrong.text()} in the median, a side is {reach:g}",
            above(wrong, reach / 2),
        ),
    ]
