"""The paper's MNIST figures beside ours: a table on every data set, claims where data and eps are the paper's."""

from s2snet.analysis.bench import Bench, Claim
from s2snet.analysis.intervals import Estimate, share
from s2snet.analysis.linearity import paper
from s2snet.analysis.linearity.reading import estimate, find
from s2snet.analysis.linearity.training import WATCHED

# A figure's key: (net, made on, whether attacked, measure) in the table `errors`.
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
IN_AGREEMENT = {
    "softmax as maxout": ("maxout", "softmax", "first wrong"),
    "softmax as maxout, both": ("maxout", "softmax", "both wrong"),
    "rbf as maxout": ("maxout", "rbf", "first wrong"),
    "rbf as maxout, both": ("maxout", "rbf", "both wrong"),
    "rbf as softmax, both": ("softmax", "rbf", "both wrong"),
}
IN_RUBBISH = {f"rubbish {net}": net for net in ("maxout", "sigmoid", "softmax", "rbf")}


def of_paper(bench: Bench, eps: float, epochs: int, members: int, within: float) -> list[Claim]:
    """Table `paper`: each figure of the paper, ours with its interval, and clipped. Claims on MNIST at its eps.

    Reads the tables that the other parts of the study have made.
    """
    ours = beside(bench.tables, eps, min(len(bench.splits.train), WATCHED))

    def rows():
        for key, figure in paper.FIGURES.items():
            if key in ours:
                found, clipped = ours[key]
                row = {"figure": key, "what": figure.says, "section": figure.section, "paper": figure.value}
                row |= {"found": found.value, "low": found.low, "high": found.high, "n": found.n}
                row |= {"clipped": clipped and clipped.value, "tolerance": paper.tolerance(figure, within)}
                yield row | {"met": paper.met(figure, found, within)}

    known = {key: [each and list(vars(each).values()) for each in both] for key, both in ours.items()}
    tolerances = {key: paper.tolerance(paper.FIGURES[key], within) for key in ours}
    bench.rows("paper", rows, ours=known, tolerances=tolerances)
    if bench.data != "mnist" or eps != paper.EPS:
        return []
    pixels = bench.splits.test[0][0].numel()
    because = (
        f"{epochs} epochs with one seed, and no retraining on all 60,000 images; the paper names no optimiser, "
        "learning rate, depth or dropout, ours are the maxout paper's"
    )
    because += f"; {pixels} pixels with the padding instead of {paper.PIXELS}" if pixels != paper.PIXELS else ""
    more = {"ensemble": f"{members} nets instead of 12; ", "rbf": "the RBF's form and training are ours; "}
    return [
        paper.claim(key, *ours[key], within, more.get(key.split()[0], "") + because)
        for key in paper.FIGURES
        if key in ours
    ]


def beside(tables: dict[str, list[dict]], eps: float, watched: int) -> dict[str, tuple[Estimate, Estimate | None]]:
    """What stands beside each figure: our estimate, and the one under a clipped step where that is measured.

    `watched` training images are behind the curve of training errors.
    """
    found: dict[str, tuple[Estimate, Estimate | None]] = {}
    for key, (net, source, attacked, measure) in IN_ERRORS.items():
        both = [find(tables["errors"], net, source, eps if attacked else 0.0, clipped) for clipped in (False, True)]
        ours = [estimate(row, measure) if row[measure] is not None else None for row in both]
        if ours[0]:
            found[key] = ours[0], ours[1] if attacked else None
    for key, wanted in IN_AGREEMENT.items():
        for row in tables["agreement"]:
            if (row["first"], row["second"], row["among"]) == wanted:
                found[key] = Estimate(row["same"], row["low"], row["high"], row["n"]), None
    for row in tables["rubbish"]:
        for key, net in IN_RUBBISH.items():
            if row["net"] == net:
                found[key] = Estimate(row["error"], row["low"], row["high"], row["n"]), None
    logistic = {row["attack"]: row for row in tables["logistic"] if (row["training"], row["part"]) == ("clean", "test")}
    found["logistic clean"] = estimate(logistic["none"]), None
    found["logistic"] = estimate(logistic["fgsm"]), estimate(logistic["fgsm clipped"])
    decayed = [row["train"] for row in tables["curves"] if row["net"] == "l1"]
    found["l1"] = share(round(min(decayed) * watched), watched), None
    return found
