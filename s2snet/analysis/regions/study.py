"""regions: where a classifier looks, where attacks go, and what it is worth to take out what lies in the second only.

After *Spatially Correlated Patterns in Adversarial Images* (arXiv 2011.10794), of which only the abstract was at hand:
its words are region of importance, region of attack, neutralising. Maps, quantiles, controls and attackers are this
project's own. Leaves two purifiers for `python evaluate.py defence=[none,neutralised,neutralised_per_input]`.
"""

from types import SimpleNamespace

from s2snet.analysis.bench import Bench, Claim
from s2snet.analysis.regions import tables
from s2snet.analysis.regions.claims import claims
from s2snet.analysis.regions.measured import IMPORTANCES, Measured, measure
from s2snet.analysis.regions.pictures import show
from s2snet.config.choices import choose
from s2snet.models.fills import FILLS
from s2snet.store import weights


def regions(
    bench: Bench,
    *,
    images: int = 120,
    train_images: int = 300,
    importance: str = "gradient_x_input",
    path_steps: int = 16,
    patch: int = 6,
    attacks: tuple[str, ...] | list[str] = ("ddn", "deepfool"),
    q: float = 0.2,
    sweep: tuple[float, ...] | list[float] = (0.05, 0.1, 0.2, 0.3, 0.5),
    sigma: float = 1.0,
    starts: int = 2,
    start_eps: float = 0.03,
    fill: str = "inpaint",
    width: float = 2.0,
    per_class: bool = False,
    eps: float | None = None,
    steps: int = 30,
    losses: tuple[str, ...] | list[str] = ("cross_entropy", "dlr"),
    restarts: int = 3,
    restart_steps: int = 100,
    temperature: float = 0.1,
    draws: int = 3,
    pictures: int = 6,
) -> list[Claim]:
    """Maps, regions and their overlap; what each part is worth taken out; the attackers who know that it is.

    Of the classifier of defence=none, in the L2 norm: a sign step is as large everywhere and has no region. The options
    are explained in conf/study/regions.yaml. Costs, per image: the minimal attacks; about (2 side / patch)^2 forwards;
    up to steps x losses + restart_steps x restarts passes for each attacker while the image stands, those through a
    mask per image about 3 (1 + starts) times as dear.
    """
    options = SimpleNamespace(**{name: value for name, value in locals().items() if name != "bench"})
    _check(options)
    classifier = bench.need("none").classifier
    if "classes" not in getattr(classifier, "config", {}):
        raise ValueError("study=regions: its purifiers hold the classifier, which s2snet.models.build must have made")
    known = measure(bench, classifier, options)
    overlap = tables.overlap(bench, known, options)
    kept = tables.neutralising(bench, known, options)
    stood = tables.adaptive(bench, known, options)
    show(bench, known, options)
    _leave(bench, known, options)
    return claims(known.eps, options, overlap, kept, stood)


regions.version = 1


def _check(options: SimpleNamespace) -> None:
    choose("study.regions.importance", options.importance, IMPORTANCES)
    choose("study.regions.fill", options.fill, FILLS)
    for name in options.attacks:
        choose("study.regions.attacks", name, ("ddn", "deepfool", "cw", "fmn"))
    for share in (options.q, *options.sweep):
        if not 0 < share <= 0.5:
            raise ValueError(f"study.regions.q={share}: a share of the pixels, above 0 and at most 0.5")
    if options.restarts < 0 or not options.losses:
        raise ValueError(f"study.regions.restarts={options.restarts}, losses={options.losses}: 0 or more, one or more")
    for name in (
        "images",
        "train_images",
        "path_steps",
        "patch",
        "starts",
        "steps",
        "restart_steps",
        "draws",
        "pictures",
    ):
        if getattr(options, name) < 1:
            raise ValueError(f"study.regions.{name}={getattr(options, name)}: at least 1")


def _leave(bench: Bench, known: Measured, options: SimpleNamespace) -> None:
    """The purifiers' files: neutralised (static, or per class) and neutralised_per_input."""
    knowledge = known.knowledge
    about = {"classifier": weights.fingerprint(known.classifier), "q": options.q, "importance": options.importance}
    masks = knowledge.masks("per_class" if options.per_class else "static", "V", options.q)
    bench.leave("neutralised", knowledge.static(masks), per_class=options.per_class, **about)
    bench.leave("neutralised_per_input", knowledge.per_input(options.q), **about)
