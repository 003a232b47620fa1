"""Errors under FGSM as tables, and what is claimed of them: linear nets fall, models agree, ensembles do not help."""

from collections.abc import Iterator

from s2snet.analysis import intervals
from s2snet.analysis.bench import Bench, Claim, Sample
from s2snet.analysis.intervals import Estimate
from s2snet.analysis.linearity import of_training
from s2snet.analysis.linearity.attacked import Ensemble, agreements, crafted, judged
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.paper import PAPER
from s2snet.analysis.linearity.reading import NEAR, decide, estimate, find
from s2snet.analysis.linearity.steps import errors
from s2snet.analysis.linearity.training import CURVE, Trained
from s2snet.attacks import pgd

SWEPT = ("softmax", "maxout", "adversarial", "signs", "uniform", "rbf", "tanh")  # over radii too
COMPARED = ("maxout", "softmax", "rbf")  # in their wrong classes
PGD_IMAGES, PGD_STEPS = 500, 40  # of the check that one step is not all


def of_errors(
    bench: Bench, trained: dict[str, Trained], test: Sample, eps: float, radii: list[float], alpha: float
) -> list[Claim]:
    """Tables `errors` (net x maker of the images x eps), `curves`, `alpha`, `many_steps`, `agreement`; claims."""
    nets: dict[str, Net] = {name: each.net for name, each in trained.items()}
    members = [name for name in nets if name == "maxout" or name.startswith("member ")]
    nets["ensemble"] = Ensemble([nets[name] for name in members]).eval()
    facts = {"images": test.images, "labels": test.labels, "eps": eps}

    def of_net(name: str) -> Iterator[dict]:
        net, given = nets[name], (test.images, test.labels)
        yield _row(name, name, 0.0, False) | judged(net, *given)
        for radius in sorted({eps, *(radii if name in SWEPT else [])}):
            yield _row(name, name, radius, False) | judged(net, crafted(net, *given, radius, False), test.labels)
        yield _row(name, name, eps, True) | judged(net, crafted(net, *given, eps, True), test.labels)

    def across(source: str, judge: str) -> Iterator[dict]:
        for clipped in (False, True):
            images = crafted(nets[source], test.images, test.labels, eps, clipped)
            yield _row(judge, source, eps, clipped) | judged(nets[judge], images, test.labels)

    def same() -> Iterator[dict]:
        images = crafted(nets["maxout"], test.images, test.labels, eps, False)
        return agreements({name: nets[name] for name in COMPARED}, images, test.labels, "maxout")

    rows = []
    for name in bench.each([name for name in nets if not name.startswith("member ")], "errors"):
        own = radii if name in SWEPT else []
        rows += bench.rows("errors", lambda name=name: of_net(name), name=name, net=nets[name], radii=own, **facts)
    for source, judge in (("maxout", "adversarial"), ("adversarial", "maxout"), ("maxout", "ensemble")):
        pair = {"source": nets[source], "judge": nets[judge], "names": [source, judge]}
        rows += bench.rows("errors", lambda pair=(source, judge): across(*pair), **pair, **facts)
    curves = bench.rows("curves", lambda: _curves(trained), nets=trained)
    by_alpha = _by_alpha(rows, list(trained), eps, alpha)
    alphas = bench.rows("alpha", lambda: by_alpha, rows=by_alpha)
    both = {name: nets[name] for name in ("maxout", "adversarial")}
    many = bench.rows("many_steps", lambda: _many_steps(both, test, eps), nets=both, **facts)
    agreement = bench.rows("agreement", same, nets={name: nets[name] for name in COMPARED}, **facts)

    def pick(judge: str, radius: float = eps, source: str | None = None) -> Estimate:
        return estimate(find(rows, judge, source or judge, radius, False))

    clean = errors(nets["adversarial"], test.images, test.labels).double()
    clean -= errors(nets["maxout"], test.images, test.labels).double()
    return [
        _fragile(pick, eps),
        _rbf(rows, eps),
        *of_training.adversarial(pick, eps, intervals.mean(clean.cpu().numpy())),
        *of_training.noise(pick),
        of_training.transfer(pick),
        of_training.one_step_is_all(many, eps),
        *of_training.share_of_clean(alphas, alpha),
        of_training.stopping(curves, len(bench.splits.test)),
        *_agreement(agreement, len(bench.classes)),
        _ensemble(pick),
    ]


def _row(judge: str, source: str, eps: float, clipped: bool) -> dict:
    return {"net": judge, "made_on": source, "eps": eps, "clipped": clipped}


def _curves(trained: dict[str, Trained]) -> Iterator[dict]:
    for name, each in trained.items():
        for epoch, line in enumerate(each.curve.tolist(), 1):
            yield {"net": name, "epoch": epoch} | dict(zip(CURVE, line, strict=True))


def _fragile(pick, eps: float) -> Claim:
    softmax, maxout = pick("softmax"), pick("maxout")
    return Claim(
        "one step fools linear and near-linear nets",
        f"One sign step of eps = {eps:g} makes softmax regression and maxout wrong on most images (more than half).",
        f"{PAPER}, section 4",
        f"softmax {softmax.percent()} (clean {pick('softmax', 0.0).percent()}), maxout {maxout.percent()} (clean "
        f"{pick('maxout', 0.0).percent()})",
        decide(min(softmax.low, maxout.low) > 0.5, min(softmax.high, maxout.high) < 0.5),
    )


def _rbf(rows: list[dict], eps: float) -> Claim:
    rbf, maxout = (find(rows, name, name, eps, False) for name in ("rbf", "maxout"))
    unsure = [estimate(row, "confidence_mistakes") if row["error"] else None for row in (rbf, maxout)]
    said = [each.percent() if each else "no mistakes" for each in unsure]
    known = None not in unsure
    return Claim(
        "RBF is unsure when fooled",
        "Where the step fools it, the RBF net is less confident than maxout is where it is fooled.",
        f"{PAPER}, section 7",
        f"confidence on mistakes: RBF {said[0]}, maxout {said[1]}; errors {estimate(rbf).percent()} and "
        f"{estimate(maxout).percent()}",
        decide(known and unsure[0].high < unsure[1].low, known and unsure[0].low > unsure[1].high),
    )


def _many_steps(nets: dict[str, Net], test: Sample, eps: float) -> Iterator[dict]:
    """One step, clipped, and PGD within the same ball and [0, 1], on the first images."""
    images, labels = test.images[:PGD_IMAGES], test.labels[:PGD_IMAGES]
    for name, net in nets.items():
        yield {"net": name, "attack": "one step"} | judged(net, crafted(net, images, labels, eps, False), labels)
        yield {"net": name, "attack": "one step, clipped"} | judged(
            net, crafted(net, images, labels, eps, True), labels
        )
        found = pgd(net, images, labels, eps=eps, norm="linf", steps=PGD_STEPS)
        yield {"net": name, "attack": f"PGD-{PGD_STEPS}"} | judged(net, found, labels)


def _by_alpha(rows: list[dict], names: list[str], eps: float, alpha: float) -> list[dict]:
    """Clean and stepped errors of the nets that differ in alpha; clean training is alpha 1."""
    alphas = {"adversarial": alpha} | {name: float(name.split()[1]) for name in names if name.startswith("alpha ")}
    found = []
    for name, value in sorted((alphas | {"maxout": 1.0}).items(), key=lambda item: item[1]):
        row = {"net": name, "alpha": value}
        for attack, radius in (("clean", 0.0), ("stepped", eps)):
            of = estimate(find(rows, name, name, radius, False))
            row |= {attack: of.value, f"{attack}_low": of.low, f"{attack}_high": of.high, "n": of.n}
        found.append(row)
    return found


def _agreement(rows: list[dict], classes: int) -> list[Claim]:
    among = {(row["first"], row["second"], row["among"]): row for row in rows}

    def said(second: str) -> Estimate | None:
        row = among.get(("maxout", second, "both wrong"))
        return row and Estimate(row["same"], row["low"], row["high"], row["n"])

    softmax, rbf = said("softmax"), said("rbf")
    chance = 1 / (classes - 1)
    texts = {name: each.percent() if each else "never both wrong" for name, each in (("s", softmax), ("r", rbf))}
    known = softmax is not None and rbf is not None
    return [
        Claim(
            "models agree on the wrong class",
            "Where both are wrong on maxout's FGSM images, softmax regression says maxout's class more often than by "
            "chance.",
            f"{PAPER}, section 8",
            f"same class {texts['s']}; chance {100 * chance:.3g} %",
            decide(softmax is not None and softmax.low > chance, softmax is not None and softmax.high < chance),
        ),
        Claim(
            "linear models agree more",
            "Softmax regression says maxout's wrong class more often than the RBF net does, where both are wrong.",
            f"{PAPER}, section 8",
            f"softmax {texts['s']}, RBF {texts['r']}",
            decide(known and softmax.low > rbf.high, known and softmax.high < rbf.low),
        ),
    ]


def _ensemble(pick) -> Claim:
    single, together, by_one = pick("maxout"), pick("ensemble"), pick("ensemble", source="maxout")
    return Claim(
        "an ensemble does not help",
        f"Attacked as a whole, an ensemble of maxout nets errs as much as one of them (within {100 * NEAR:g} points).",
        f"{PAPER}, section 9",
        f"ensemble {together.percent()}, attacked on one member {by_one.percent()}, one net {single.percent()}",
        decide(together.high >= single.low - NEAR, together.high < single.low - NEAR),
    )
