"""What is claimed of errors under FGSM: linear nets fall, adversarial training helps, noise does not, models agree."""

from collections.abc import Iterator

from s2snet.analysis import intervals
from s2snet.analysis.bench import FAILS, HOLDS, UNDECIDED, Bench, Claim, Sample
from s2snet.analysis.intervals import Estimate
from s2snet.analysis.linearity.attacked import Ensemble, agreements, crafted, judged
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.paper import PAPER
from s2snet.analysis.linearity.steps import errors
from s2snet.analysis.linearity.training import CURVE, WATCHED, Trained

SWEPT = ("softmax", "maxout", "adversarial", "signs", "uniform", "rbf", "tanh")  # over radii too
COMPARED = ("maxout", "softmax", "rbf")  # in their wrong classes
NEAR = 0.05  # of alpha and of ensembles: a share that counts as the same


def of_errors(
    bench: Bench, trained: dict[str, Trained], test: Sample, eps: float, radii: list[float], alpha: float
) -> list[Claim]:
    """Tables `errors` (net x maker of the images x eps), `curves` (over epochs), `agreement`, and their claims."""
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
    agreement = bench.rows("agreement", same, nets={name: nets[name] for name in COMPARED}, **facts)

    def pick(judge: str, radius: float = eps, source: str | None = None) -> Estimate:
        return estimate(find(rows, judge, source or judge, radius, False))

    clean = errors(nets["adversarial"], test.images, test.labels).double()
    clean -= errors(nets["maxout"], test.images, test.labels).double()
    return [
        _fragile(pick, eps),
        _rbf(rows, eps),
        *_adversarial(pick, eps, intervals.mean(clean.cpu().numpy())),
        *_noise(pick),
        _transfer(pick),
        *_alpha(rows, eps, alpha),
        _stopping(curves, len(bench.splits.test)),
        *_agreement(agreement, len(bench.classes)),
        _ensemble(pick),
    ]


def find(rows: list[dict], judge: str, source: str, eps: float, clipped: bool) -> dict:
    """The row of `errors` on that net, of images made against `source`."""
    wanted = (judge, source, eps, clipped if eps else False)
    return next(row for row in rows if (row["net"], row["made_on"], row["eps"], row["clipped"]) == wanted)


def estimate(row: dict, of: str = "error") -> Estimate:
    """A row's `error`, `confidence` or `confidence_mistakes` with its interval."""
    ends = ("low", "high") if of == "error" else (f"{of}_low", f"{of}_high")
    count = row["n"] if of != "confidence_mistakes" else round(row["n"] * row["error"])
    return Estimate(row[of], row[ends[0]], row[ends[1]], count)


def _row(judge: str, source: str, eps: float, clipped: bool) -> dict:
    return {"net": judge, "made_on": source, "eps": eps, "clipped": clipped}


def _curves(trained: dict[str, Trained]) -> Iterator[dict]:
    for name, each in trained.items():
        for epoch, line in enumerate(each.curve.tolist(), 1):
            yield {"net": name, "epoch": epoch} | dict(zip(CURVE, line, strict=True))


def _decide(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNDECIDED


def _fragile(pick, eps: float) -> Claim:
    softmax, maxout = pick("softmax"), pick("maxout")
    return Claim(
        "one step fools linear and near-linear nets",
        f"One sign step of eps = {eps:g} makes softmax regression and maxout wrong on most images (more than half).",
        f"{PAPER}, section 4",
        f"softmax {softmax.percent()} (clean {pick('softmax', 0.0).percent()}), maxout {maxout.percent()} (clean "
        f"{pick('maxout', 0.0).percent()})",
        _decide(min(softmax.low, maxout.low) > 0.5, min(softmax.high, maxout.high) < 0.5),
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
        _decide(known and unsure[0].high < unsure[1].low, known and unsure[0].low > unsure[1].high),
    )


def _adversarial(pick, eps: float, clean: Estimate) -> list[Claim]:
    plain, hard = pick("maxout"), pick("adversarial")
    return [
        Claim(
            "adversarial training helps",
            f"Adversarial training (alpha 0.5) more than halves maxout's error under one step of eps = {eps:g}.",
            f"{PAPER}, section 6",
            f"from {plain.percent()} to {hard.percent()}",
            _decide(hard.high < plain.low / 2, hard.low > plain.high / 2),
        ),
        Claim(
            "adversarial training regularises",
            "Adversarial training lowers maxout's clean error too.",
            f"{PAPER}, section 6",
            f"difference of clean errors, image by image: {clean.percent()}",
            _decide(clean.high < 0, clean.low > 0),
            "" if clean.high < 0 else "as many epochs for both, too few for the adversarial net to converge",
        ),
    ]


def _noise(pick) -> list[Claim]:
    plain, hard = pick("maxout"), pick("adversarial")
    claims = []
    for kind, what in (("signs", "±eps added to each pixel"), ("uniform", "U(-eps, eps)")):
        noisy = pick(kind)
        least, most = (plain.low - noisy.high) / (plain.high - hard.low), (plain.high - noisy.low)
        most = most / (plain.low - hard.high) if plain.low > hard.high else float("inf")
        share = (plain.value - noisy.value) / (plain.value - hard.value) if plain.value != hard.value else float("nan")
        claims.append(
            Claim(
                f"noise is no substitute: {kind}",
                f"Training on noise, {what}, takes off less than a quarter of the FGSM error that adversarial training "
                "does.",
                f"{PAPER}, section 6; the quarter is ours",
                f"error {noisy.percent()}, beside {plain.percent()} without and {hard.percent()} with adversarial "
                f"training: {100 * share:.0f} % of the gain ({100 * least:.0f} to {100 * most:.0f})",
                _decide(plain.low > hard.high and most < 0.25, plain.low > hard.high and least > 0.25),
            )
        )
    return claims


def _transfer(pick) -> Claim:
    to_new, to_old = pick("adversarial", source="maxout"), pick("maxout", source="adversarial")
    return Claim(
        "transfer to and from the adversarially trained net",
        "The adversarially trained net errs less on the plain net's FGSM images than the plain net on its.",
        f"{PAPER}, section 6",
        f"plain to adversarially trained {to_new.percent()}, back {to_old.percent()}",
        _decide(to_new.high < to_old.low, to_new.low > to_old.high),
    )


def _alpha(rows: list[dict], eps: float, alpha: float) -> list[Claim]:
    """Nothing where no other alpha was trained."""
    names = {"adversarial": alpha} | {
        row["net"]: float(row["net"].split()[1]) for row in rows if row["net"].startswith("alpha ")
    }
    found = {value: estimate(find(rows, name, name, eps, False)) for name, value in names.items()}
    if len(found) == 1:
        return []
    best = min(found.values(), key=lambda each: each.value)
    text = "; ".join(f"alpha {value:g} {found[value].percent()}" for value in sorted(found))
    return [
        Claim(
            "alpha",
            f"alpha = {alpha:g} works about as well as others (FGSM error within {100 * NEAR:g} points of the best).",
            f"{PAPER}, section 6: 0.5 was a first guess that worked well enough",
            text,
            _decide(found[alpha].high <= best.low + NEAR, found[alpha].low > best.high + NEAR),
        )
    ]


def _stopping(curves: list[dict], count: int) -> Claim:
    """Errors on the watched test images at the epochs that either validation error would choose."""
    curve = [row for row in curves if row["net"] == "adversarial"]
    chosen = {name: min(curve, key=lambda row: row[name]) for name in ("validation", "adversarial_validation")}
    n = min(count, WATCHED)
    at = {name: intervals.share(round(row["adversarial_test"] * n), n) for name, row in chosen.items()}
    by_clean, by_hard = at["validation"], at["adversarial_validation"]
    epochs = [chosen[name]["epoch"] for name in ("validation", "adversarial_validation")]
    return Claim(
        "early stopping on adversarial error",
        "Under adversarial training, stopping at the least adversarial validation error leaves less FGSM error than "
        "stopping at the least clean validation error.",
        f"{PAPER}, section 6",
        f"stopping by clean error at epoch {epochs[0]}: {by_clean.percent()}; by adversarial error at epoch "
        f"{epochs[1]} of {len(curve)}: {by_hard.percent()}",
        _decide(by_hard.high < by_clean.low, by_hard.low > by_clean.high),
        "" if by_hard.high < by_clean.low else f"{len(curve)} epochs; the paper waits for a hundred without gain",
    )


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
            _decide(softmax is not None and softmax.low > chance, softmax is not None and softmax.high < chance),
        ),
        Claim(
            "linear models agree more",
            "Softmax regression says maxout's wrong class more often than the RBF net does, where both are wrong.",
            f"{PAPER}, section 8",
            f"softmax {texts['s']}, RBF {texts['r']}",
            _decide(known and softmax.low > rbf.high, known and softmax.high < rbf.low),
        ),
    ]


def _ensemble(pick) -> Claim:
    single, together, by_one = pick("maxout"), pick("ensemble"), pick("ensemble", source="maxout")
    return Claim(
        "an ensemble does not help",
        f"Attacked as a whole, an ensemble of maxout nets errs as much as one of them (within {100 * NEAR:g} points).",
        f"{PAPER}, section 9",
        f"ensemble {together.percent()}, attacked on one member {by_one.percent()}, one net {single.percent()}",
        _decide(together.high >= single.low - NEAR, together.high < single.low - NEAR),
    )
