"""Regions that a classifier looks at, regions that attacks alter, and the effect of removing the second only.

After *Spatially Correlated Patterns in Adversarial Images* (arXiv 2011.10794), of which only the abstract was at hand:
its terms are region of importance, region of attack, neutralising. Maps, quantiles, controls and attackers are this
project's own. Saves two purifiers for `python evaluate.py defence=[none,neutralised,neutralised_per_input]`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from s2snet.analysis.bench import Bench
from s2snet.analysis.claim import Claim
from s2snet.analysis.regions import claims, inputs, measures, tables
from s2snet.config.choices import choose
from s2snet.models.fills import FILLS
from s2snet.models.regions import ranks
from s2snet.store import weights

VERSION = 1
COLOURS = {"B": (0.48, 0.29, 0.62), "I": (0.11, 0.37, 0.61), "V": (0.69, 0.27, 0.05), "N": (0.93, 0.92, 0.90)}
KEY = "Parts: B (critical to both) purple, I (to the classifier) blue, V (to the attack) orange, N (neither) gray."


def run(
    bench: Bench,
    *,
    images: int = 120,
    train_images: int = 300,
    importance: str = "gradient_x_input",
    path_steps: int = 16,
    patch: int = 6,
    attacks: Sequence[str] = ("ddn", "deepfool"),
    q: float = 0.2,
    sweep: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5),
    sigma: float = 1.0,
    starts: int = 2,
    start_eps: float = 0.03,
    fill: str = "inpaint",
    width: float = 2.0,
    per_class: bool = False,
    eps: float | None = None,
    steps: int = 30,
    losses: Sequence[str] = ("cross_entropy", "dlr"),
    restarts: int = 3,
    restart_steps: int = 100,
    temperature: float = 0.1,
    draws: int = 3,
    pictures: int = 6,
) -> list[Claim]:
    """Return claims about maps and regions, about each part removed, and about attackers who know that it is.

    They are about the classifier of defence=none, in the L2 norm: a sign step is the same everywhere and has no region.
    conf/study/regions.yaml explains the options. Costs, per image: the minimal attacks; about (2 side / patch)^2
    forwards; up to steps x losses + restart_steps x restarts passes for each attacker while the image is not fooled,
    about 3 (1 + starts) times as expensive through a mask per image.
    """
    _check(importance, fill, attacks, q, sweep, restarts, losses)
    at_least_one = {"images": images, "train_images": train_images, "path_steps": path_steps, "patch": patch}
    at_least_one |= {"starts": starts, "steps": steps, "restart_steps": restart_steps, "draws": draws}
    for name, value in (at_least_one | {"pictures": pictures}).items():
        if value < 1:
            raise ValueError(f"study.regions.{name}={value}: at least 1")
    classifier = bench.defended("none").classifier
    if "classes" not in getattr(classifier, "config", {}):
        raise ValueError("study=regions: its purifiers hold the classifier, so s2snet.models.build must have built it")
    known = inputs.compute(
        bench,
        classifier,
        images=images,
        train_images=train_images,
        importance=importance,
        path_steps=path_steps,
        patch=patch,
        attacks=list(attacks),
        sigma=sigma,
        starts=starts,
        start_eps=start_eps,
        fill=fill,
        width=width,
        eps=eps,
        steps=steps,
    )
    shares = sorted({*sweep, q})
    attack = {"steps": steps, "losses": list(losses), "restarts": restarts, "restart_steps": restart_steps}
    overlap = tables.overlap(bench, known, importance, q, shares)
    neutralised = tables.neutralising(bench, known, q, shares, fill, draws)
    attacked = tables.adaptive(bench, known, q, shares, attack | {"temperature": temperature})
    _add_pictures(bench, known, importance, q, pictures)

    facts = {"classifier": weights.fingerprint(classifier), "q": q, "importance": importance}
    masks = known.masks.shared("per_class" if per_class else "static", "V", q)
    bench.save_purifier("neutralised", known.masks.static(masks), per_class=per_class, **facts)
    bench.save_purifier("neutralised_per_input", known.masks.per_input(q), **facts)
    return claims.all_claims(known.eps, q, importance, list(attacks), fill, overlap, neutralised, attacked)


def _check(
    importance: str,
    fill: str,
    attacks: Sequence[str],
    q: float,
    sweep: Sequence[float],
    restarts: int,
    losses: Sequence[str],
) -> None:
    """ValueError, in one line, for options that are out of range."""
    choose("study.regions.importance", importance, inputs.IMPORTANCES)
    choose("study.regions.fill", fill, FILLS)
    for name in attacks:
        choose("study.regions.attacks", name, ("ddn", "deepfool", "cw", "fmn"))
    for share in (q, *sweep):
        if not 0 < share <= 0.5:
            raise ValueError(f"study.regions.q={share}: a share of the pixels, above 0 and at most 0.5")
    if restarts < 0 or not losses:
        raise ValueError(f"study.regions.restarts={restarts}, losses={losses}: at least 0 restarts, at least one loss")


def _add_pictures(bench: Bench, known: inputs.Inputs, importance: str, q: float, count: int) -> None:
    """Add `images`, the maps and parts of some images, and `masks`, those from training images."""
    rows = torch.nonzero(known.fooled).squeeze(1)[:count]
    images = known.test.images[rows]
    parts = measures.partition(known.importance[importance][rows], known.agnostic[rows], q)
    hole = parts["V"][:, None].to(images)
    filled = {
        fill: known.masks.static(known.masks.shared("static", "V", q), fill).filled(images, hole)[0] for fill in FILLS
    }
    columns = {
        "image": images,
        **{name.replace("_", " "): ranks(maps[rows])[:, None] for name, maps in known.importance.items()},
        "attack, agnostic": ranks(known.agnostic[rows])[:, None],
        "attack, oracle": ranks(known.oracle[rows])[:, None],
        "parts": _coloured(parts),
        **{f"without V: {fill}": content for fill, content in filled.items()},
    }
    pictures = torch.stack([_rgb(column) for column in columns.values()], dim=1)
    names = [f"{bench.classes[label]} (image {index})" for label, index in
             zip(known.test.labels[rows].tolist(), known.test.index[rows.cpu()].tolist(), strict=True)]  # fmt: skip
    bench.add_grid("images", pictures, names, list(columns), "Where the classifier looks and where attacks go",
               f"Maps are ranks, white for the highest. {KEY}")  # fmt: skip
    means = known.masks.means
    looked, attacked = (torch.cat([means["static"][k], means["per_class"][k]]) for k in range(2))
    masks = _coloured(measures.partition(looked, attacked, q))
    pictures = torch.stack([_rgb(ranks(looked)[:, None]), _rgb(ranks(attacked)[:, None]), masks])
    bench.add_grid("masks", pictures[:, :11], ["importance", "attack, agnostic", "parts"],
               ["all images", *bench.classes[:10]][: pictures.shape[1]],
               "Averages over training images, all together and by predicted class", KEY)  # fmt: skip


def _coloured(parts: dict[str, Tensor]) -> Tensor:
    """Return the parts [n, H, W] as colours [n, 3, H, W]."""
    tints = [
        torch.tensor(COLOURS[part], device=parts[part].device)[:, None, None] * parts[part][:, None]
        for part in measures.PARTS
    ]
    return torch.stack(tints).sum(dim=0)


def _rgb(images: Tensor) -> Tensor:
    """Return images [n, C, H, W] with three channels, in [0, 1]."""
    images = images.float().clamp(0, 1)
    return images if images.shape[1] == 3 else images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
