"""What is claimed of noise images: that nets take them for something, and one step makes any class of them."""

import numpy as np

from s2snet.analysis import intervals
from s2snet.analysis.bench import Bench, Claim, Sample
from s2snet.analysis.linearity.attacked import fooling, rubbish
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.paper import PAPER
from s2snet.analysis.linearity.reading import estimate
from s2snet.analysis.rules import above, below

JUDGED = ("maxout", "sigmoid", "softmax", "rbf", "adversarial", "tanh")
NONE = 0.01  # a share of errors that counts as none


def of_rubbish(bench: Bench, nets: dict[str, Net], test: Sample, eps: float, count: int, stepped: int) -> list[Claim]:
    """Tables `rubbish` (false positives on N(0, 1) images) and `fooling` (one step to each class), their claims."""
    shape, facts = test.images.shape[1:], {"shape": list(test.images.shape[1:]), "seed": bench.seed}
    judged = {name: nets[name] for name in JUDGED}

    def false():
        for name in bench.each(judged, "noise images"):
            yield {"net": name} | rubbish(judged[name], shape, count, bench.seed, bench.device)

    def steps():
        for row in fooling(nets["maxout"], shape, stepped, eps, bench.seed, bench.device):
            yield {"net": "maxout"} | row

    rows = bench.rows("rubbish", false, nets=judged, count=count, **facts)
    made = bench.rows("fooling", steps, net=nets["maxout"], count=stepped, eps=eps, **facts)
    found = {row["net"]: estimate(row) for row in rows}
    mean = intervals.mean([row["success"] for row in made])
    worst = min(made, key=lambda row: row["success"])
    several = np.mean([row["before"] for row in made])
    named = [f"{name} {found[name].percent()}" for name in ("softmax", "sigmoid", "adversarial", "tanh")]
    return [
        Claim(
            "noise is taken for a class",
            "Maxout gives some class more than one half on most N(0, 1) images.",
            f"{PAPER}, appendix",
            f"maxout {found['maxout'].percent()}; {', '.join(named)}",
            above(found["maxout"], 0.5),
        ),
        Claim(
            "RBF takes no noise for a class",
            f"The RBF net gives no class more than one half on N(0, 1) images (less than {100 * NONE:g} % of them).",
            f"{PAPER}, appendix",
            found["rbf"].percent(),
            below(found["rbf"], NONE),
        ),
        Claim(
            "one step from noise to any class",
            f"One sign step of eps = {eps:g} turns most N(0, 1) images into the class that is wanted (p > 1/2), "
            "averaged over the classes.",
            f"{PAPER}, appendix (CIFAR-10; mean 75.3 %, worst class 24.7 %)",
            f"mean {100 * mean.value:.1f} % ({100 * mean.low:.1f} to {100 * mean.high:.1f}, n = {mean.n} classes of "
            f"{stepped} images), {100 * several:.1f} % without the step; worst class "
            f"{bench.classes[worst['class']]} with {100 * worst['success']:.1f} %",
            above(mean, 0.5),
        ),
    ]
