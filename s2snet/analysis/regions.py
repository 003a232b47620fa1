"""regions: where a classifier looks, where an attack goes, and what it is worth to take out what lies in the second only.

After *Spatially Correlated Patterns in Adversarial Images* (arXiv 2011.10794), of which only the abstract was at hand:
its words are region of importance, region of attack, neutralising. Maps, quantiles, controls and attackers are this
project's own. Leaves two purifiers for `python evaluate.py defence=[none,neutralised,neutralised_per_input]`.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from s2snet import weights
from s2snet.analysis import regions_attackers, regions_claims, regions_maps, regions_pictures
from s2snet.analysis.bench import Bench, Claim
from s2snet.analysis.intervals import Estimate, mean
from s2snet.analysis.regions_maps import PARTS, iou, partition
from s2snet.analysis.regions_parts import CONTROLS, MODES, Knowledge, own_maps, right_without
from s2snet.attacks import Noise, apgd
from s2snet.choices import choose
from s2snet.models import Defended
from s2snet.models.fills import FILLS

IMPORTANCES = ("gradient_x_input", "integrated_gradients", "occlusion")
FACTOR = 1.5  # eps=null: so many times the median of the smallest perturbations, most images then fall


def regions(
    bench: Bench,
    *,
    images: int = 120,
    train_images: int = 300,
    importance: str = "gradient_x_input",
    path_steps: int = 16,
    patch: int = 4,
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
    temperature: float = 0.1,
    draws: int = 3,
    pictures: int = 6,
) -> list[Claim]:
    """Maps, regions and their overlap; what each part is worth taken out; the attackers who know that it is.

    Of the classifier of defence=none, in the L2 norm: a sign step is as large everywhere and has no region. The options
    are explained in conf/study/regions.yaml. Costs, per image: the minimal attacks; about (2 side / patch)^2 forwards;
    steps x losses passes for each attacker, those through a mask per image about 3 (1 + starts) times as dear.
    """
    options = SimpleNamespace(**{name: value for name, value in locals().items() if name != "bench"})
    _check(options)
    classifier = bench.need("none").classifier
    if "classes" not in getattr(classifier, "config", {}):
        raise ValueError("study=regions: its purifiers hold the classifier, which s2snet.models.build must have made")
    known = _measured(bench, classifier, options)
    _overlap(bench, known, options)
    _neutralising(bench, known, options)
    _adaptive(bench, known, options)
    regions_pictures.show(bench, known, options)
    _leave(bench, known, options)
    return regions_claims.claims(known, options)


regions.version = 1


def _check(options: SimpleNamespace) -> None:
    choose("study.regions.importance", options.importance, IMPORTANCES)
    choose("study.regions.fill", options.fill, FILLS)
    for name in options.attacks:
        choose("study.regions.attacks", name, ("ddn", "deepfool", "cw", "fmn"))
    for share in (options.q, *options.sweep):
        if not 0 < share <= 0.5:
            raise ValueError(f"study.regions.q={share}: a share of the pixels, above 0 and at most 0.5")
    for name in ("images", "train_images", "path_steps", "patch", "starts", "steps", "draws", "pictures"):
        if getattr(options, name) < 1:
            raise ValueError(f"study.regions.{name}={getattr(options, name)}: at least 1")


def _measured(bench: Bench, classifier: torch.nn.Module, options: SimpleNamespace) -> SimpleNamespace:
    """Images, maps, attacks and what training images say: all that the rest of the study is computed from."""
    test, train = bench.images(options.images), bench.images(options.train_images, "train")
    colour = train.images.mean(dim=(0, 2, 3))[:, None, None]
    chosen = {"sigma": options.sigma, "starts": options.starts, "eps": options.start_eps, "seed": bench.seed}
    same = {"classifier": classifier, "seed": bench.seed}
    maps_of = {"path_steps": options.path_steps, "patch": options.patch, "colour": colour}

    attacked = bench.tensors(
        "smallest",
        lambda: regions_maps.smallest(classifier, *test, list(options.attacks), bench.seed),
        images=test.images, labels=test.labels, attacks=list(options.attacks), **same,
    )  # fmt: skip
    importance = bench.tensors(
        "importance",
        lambda: regions_maps.importance_maps(classifier, test.images, list(IMPORTANCES), **maps_of),
        images=test.images, **maps_of, **same,
    )  # fmt: skip
    blank = Knowledge(classifier, *[torch.zeros_like(train.images[:, 0])] * 2, train.labels, colour, options.fill,
                      options.width, chosen)  # fmt: skip
    finder = blank.per_input(options.q)
    agnostic = bench.tensors(
        "agnostic",
        lambda: {"test": own_maps(finder, test.images)["attack"], **_prefixed("train_", own_maps(finder, train.images))},
        images=test.images, train=train.images, finder=finder,
    )  # fmt: skip
    looked = bench.tensors(
        "train_importance",
        lambda: regions_maps.importance_maps(classifier, train.images, [options.importance], **maps_of),
        images=train.images, importance=options.importance, **maps_of, **same,
    )[options.importance]  # fmt: skip
    predicted = regions_maps.passes.logits(classifier, train.images).argmax(dim=1)
    knowledge = Knowledge(
        classifier, regions_maps.smoothed(looked, options.sigma), agnostic["train_attack"], predicted, colour,
        options.fill, options.width, chosen,
    )  # fmt: skip
    nearest = torch.stack([(adversarial - test.images).flatten(1).norm(dim=1) for adversarial in attacked.values()])
    right = regions_maps.passes.right(classifier, test.images, test.labels)
    found = right & (nearest > 0).all(dim=0)
    if not found.any():
        raise ValueError("study=regions: no image that the classifier gets right was fooled; is it trained?")
    eps = options.eps or round(FACTOR * nearest.amin(dim=0)[found].median().item(), 3)
    gray = bench.tensors(
        "gray_box",
        lambda: {
            "images": apgd(classifier, test.images, test.labels, eps=eps, norm="l2", steps=options.steps,
                           random_start=False, noise=Noise(bench.seed, test.index))
        },
        images=test.images, labels=test.labels, eps=eps, steps=options.steps, **same,
    )["images"]  # fmt: skip
    return SimpleNamespace(
        test=test, knowledge=knowledge, classifier=classifier, attacked=attacked, found=found, right=right, eps=eps,
        importance={name: regions_maps.smoothed(maps, options.sigma) for name, maps in importance.items()},
        agnostic=agnostic["test"], gray=gray,
        oracle=regions_maps.smoothed(regions_maps.oracle_map(test.images, attacked), options.sigma),
    )  # fmt: skip


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _overlap(bench: Bench, known: SimpleNamespace, options: SimpleNamespace) -> None:
    """Tables `overlap` (regions), `correlation` (maps) and `energy` (of the perturbation in each part).

    Over the images that the classifier gets right and every minimal attack fools. `known.overlaps`,
    `known.correlations` and `known.energies` keep what each image has, for the claims.
    """
    chosen = known.found
    attack_maps = {"oracle": known.oracle[chosen], "agnostic": known.agnostic[chosen]}
    looks = {name: maps[chosen] for name, maps in known.importance.items()}
    known.overlaps, known.correlations, known.energies = {}, {}, {}
    overlap, correlation, energy = [], [], []
    for first, second in [*((a, b) for a in looks for b in attack_maps), ("agnostic", "oracle")]:
        pair = looks.get(first, attack_maps.get(first)), attack_maps[second]
        shares = _shares(options)
        found = bench.tensors("pair", lambda pair=pair: regions_maps.likeness(*pair, shares), maps=pair, shares=shares)
        for control, others in (("", ""), ("other image", "others ")):
            known.correlations[first, second, control] = found[f"{others}rank"]
            of = {"first": first, "second": second, "control": control}
            correlation.append({**of, **_columns(mean(found[f"{others}rank"].cpu()))})
        for q in shares:
            for control, others in (("", ""), ("random", "random "), ("other image", "others ")):
                known.overlaps[first, second, q, control] = found[f"{others}{q}"]
                of = {"first": first, "second": second, "q": q, "control": control}
                overlap.append({**of, **_columns(mean(found[f"{others}{q}"].cpu()))})
    for name, maps in attack_maps.items():
        for q in _shares(options):
            for part, mask in partition(looks[options.importance], maps, q).items():
                area = mask.flatten(1).double().mean(dim=1)
                for attack, adversarial in known.attacked.items():
                    share = regions_maps.energy((adversarial - known.test.images)[chosen], mask)
                    known.energies[name, q, part, attack] = share, area
                    energy.append({"attack_map": name, "q": q, "part": part, "attack": attack,
                                   "area": area.mean(), **_columns(mean(share.cpu()))})  # fmt: skip
    facts = {"maps": [*looks.values(), *attack_maps.values()], "shares": _shares(options)}
    bench.rows("overlap", lambda: overlap, **facts)
    bench.rows("correlation", lambda: correlation, **facts)
    bench.rows("energy", lambda: energy, importance=options.importance, attacked=known.attacked, **facts)


def _neutralising(bench: Bench, known: SimpleNamespace, options: SimpleNamespace) -> None:
    """Table `neutralising`: accuracy on clean and gray box images with each part, or a control, taken out.

    `known.kept[mode, fill, q, part, received]` is what each image has: right (1) or not (0), or the mean over draws.
    """
    test, knowledge = known.test, known.knowledge
    received = {"clean": test.images, "gray_box": known.gray}
    purifier = knowledge.per_input(options.q)
    maps = {}
    for name, x in received.items():
        own = bench.tensors("own_maps", lambda x=x: own_maps(purifier, x), purifier=purifier, images=x)
        maps[name] = own["importance"], own["attack"]
    fillers = {name: knowledge.static(knowledge.masks("static", "V", options.q), name) for name in FILLS}

    def measured(mode: str, fill: str, q: float) -> dict[str, Tensor]:
        found = {}
        for name, x in received.items():
            for part in (*PARTS, *CONTROLS):
                tried = [
                    knowledge.holes(mode, part, q, x, maps[name], seed)
                    for seed in range(options.draws if part in CONTROLS else 1)
                ]
                right = [right_without(fillers[fill], known.classifier, x, test.labels, holes) for holes in tried]
                found[f"{part} {name}"] = torch.stack(right).float().mean(dim=0)
                found[f"{part} {name} area"] = torch.stack(tried).float().mean(dim=(0, 2, 3))
        return found

    known.kept, rows = {}, []
    plain = {name: regions_maps.passes.right(known.classifier, x, test.labels).float() for name, x in received.items()}
    rows.append({"mode": "", "fill": "", "q": 0.0, "part": "nothing", "area": 0.0,
                 **_prefixed("clean_", _columns(mean(plain["clean"].cpu()))),
                 **_prefixed("gray_box_", _columns(mean(plain["gray_box"].cpu())))})  # fmt: skip
    known.plain = plain
    wanted = [(mode, options.fill, q) for mode in MODES for q in _shares(options)]
    wanted += [(mode, fill, options.q) for mode in MODES for fill in FILLS if fill != options.fill]
    for mode, fill, q in bench.each(wanted, "taking parts out"):
        found = bench.tensors(
            "kept",
            lambda mode=mode, fill=fill, q=q: measured(mode, fill, q),
            filler=fillers[fill], mode=mode, q=q, images=list(received.values()), labels=test.labels,
            means=[*knowledge.means["static"], *knowledge.means["per_class"]], maps=[*maps["clean"], *maps["gray_box"]],
            classifier=known.classifier, draws=options.draws,
        )  # fmt: skip
        for part in (*PARTS, *CONTROLS):
            row = {"mode": mode, "fill": fill, "q": q, "part": part, "area": found[f"{part} clean area"].mean()}
            for name in received:
                known.kept[mode, fill, q, part, name] = found[f"{part} {name}"]
                row |= _prefixed(f"{name}_", _columns(mean(found[f"{part} {name}"].cpu())))
            rows.append(row)
    bench.rows("neutralising", lambda: rows, values={str(key): kept for key, kept in known.kept.items()}, plain=plain)


def _adaptive(bench: Bench, known: SimpleNamespace, options: SimpleNamespace) -> None:
    """Table `adaptive`: accuracy of each defence under each attacker, judged by the real defence; the worst case last.

    `known.stood[mode, part, q]` has, by attacker, what each image has: right or not.
    """
    test, knowledge = known.test, known.knowledge
    defences: dict[tuple[str, str, float], Defended] = {
        ("undefended", "nothing", 0.0): Defended(None, known.classifier)
    }
    for q in _shares(options):
        defences["static", "V", q] = Defended(knowledge.static(knowledge.masks("static", "V", q)), known.classifier)
    for mode, part in (("static", "random"), ("static", "shifted"), ("per_class", "V")):
        masks = knowledge.masks(mode, part, options.q)
        defences[mode, part, options.q] = Defended(knowledge.static(masks), known.classifier)
    defences["per_input", "V", options.q] = Defended(knowledge.per_input(options.q), known.classifier)
    known.stood, rows = {}, []
    for (mode, part, q), defended in defences.items():
        how = {"eps": known.eps, "steps": options.steps, "losses": list(options.losses), "seed": bench.seed}
        how["temperature"] = options.temperature
        stood = {}
        if defended.has_purifier:
            stood["gray_box"] = regions_maps.passes.right(defended, known.gray, test.labels, regions_attackers.BATCH)
        for attacker in bench.each(regions_attackers.offered(defended), f"{mode} {part} {q}"):

            def make(attacker=attacker, defended=defended, how=how) -> dict[str, Tensor]:
                crafted = regions_attackers.craft(attacker, defended, *test, **how)
                return {
                    "right": regions_maps.passes.right(defended, crafted, test.labels, regions_attackers.BATCH),
                    "length": (crafted - test.images).flatten(1).norm(dim=1),
                }

            found = bench.tensors(
                "attacked", make, defended=defended, attacker=attacker, images=test.images, labels=test.labels, **how
            )
            stood[attacker] = found["right"]
        stood["worst_case"] = torch.stack(list(stood.values())).all(dim=0)
        known.stood[mode, part, q] = stood
        rows += [
            {"mode": mode, "part": part, "q": q, "attacker": attacker, "eps": known.eps,
             **_columns(mean(values.float().cpu()))}
            for attacker, values in stood.items()
        ]  # fmt: skip
    bench.rows("adaptive", lambda: rows, values={str(key): stood for key, stood in known.stood.items()}, eps=known.eps)


def _leave(bench: Bench, known: SimpleNamespace, options: SimpleNamespace) -> None:
    """The purifiers' files: neutralised (static, or per class) and neutralised_per_input."""
    knowledge = known.knowledge
    about = {"classifier": weights.fingerprint(known.classifier), "q": options.q, "importance": options.importance}
    masks = knowledge.masks("per_class" if options.per_class else "static", "V", options.q)
    bench.leave("neutralised", knowledge.static(masks), per_class=options.per_class, **about)
    bench.leave("neutralised_per_input", knowledge.per_input(options.q), **about)


def _shares(options: SimpleNamespace) -> list[float]:
    return sorted({*options.sweep, options.q})


def _columns(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
