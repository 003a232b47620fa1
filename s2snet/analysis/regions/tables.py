"""The tables of the study of regions, and what each image has in them, from which claims are decided."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench
from s2snet.analysis.intervals import Estimate, mean, share
from s2snet.analysis.regions.attackers import BATCH, craft, offered
from s2snet.analysis.regions.maps import PARTS, energy, likeness, partition
from s2snet.analysis.regions.measured import Measured
from s2snet.analysis.regions.parts import CONTROLS, MODES, margins_without, own_maps
from s2snet.models import Defended
from s2snet.models.fills import FILLS


class Overlap(NamedTuple):
    """Values of each image [n]."""

    overlaps: dict[tuple[str, str, float, str], Tensor]  # (map, map, q, control): IoU
    correlations: dict[tuple[str, str, str], Tensor]  # (map, map, control): Spearman
    energies: dict[tuple[str, float, str, str], tuple[Tensor, Tensor]]  # (attack map, q, part, attack): share, area


class Kept(NamedTuple):
    """Values of each image [n]: right (1) or not (0), or the mean over draws; margins in logits."""

    plain: dict[str, Tensor]  # by what is received: with all pixels
    right: dict[tuple[str, str, float, str, str], Tensor]  # (mode, fill, q, part, received)
    margins: dict[tuple[str, str, float, str, str], Tensor]


Stood = dict[tuple[str, str, float], dict[str, Tensor]]  # (mode, part, q), attacker: right or not, bool [n]


def overlap(bench: Bench, known: Measured, options: SimpleNamespace) -> Overlap:
    """Tables `overlap` (regions), `correlation` (maps) and `energy` (of the perturbation in each part).

    Over the images that the classifier gets right and every minimal attack fools.
    """
    chosen, shares = known.fooled, _shares(options)
    attack_maps = {"oracle": known.oracle[chosen], "agnostic": known.agnostic[chosen]}
    looks = {name: maps[chosen] for name, maps in known.importance.items()}
    found, rows = Overlap({}, {}, {}), {"overlap": [], "correlation": [], "energy": []}
    for first, second in [*((a, b) for a in looks for b in attack_maps), ("agnostic", "oracle")]:
        pair = looks.get(first, attack_maps.get(first)), attack_maps[second]
        alike = bench.tensors("pair", lambda pair=pair: likeness(*pair, shares), maps=pair, shares=shares)
        for control, others in (("", ""), ("other image", "others ")):
            found.correlations[first, second, control] = alike[f"{others}rank"]
            of = {"first": first, "second": second, "control": control}
            rows["correlation"].append({**of, **_columns(alike[f"{others}rank"])})
        for q in shares:
            for control, others in (("", ""), ("random", "random "), ("other image", "others ")):
                found.overlaps[first, second, q, control] = alike[f"{others}{q}"]
                main = first == options.importance and second == "oracle"
                of = {"first": first, "second": second, "main": main, "q": q, "control": control}
                rows["overlap"].append({**of, **_columns(alike[f"{others}{q}"])})
    for name, maps in attack_maps.items():
        for q in shares:
            for part, mask in partition(looks[options.importance], maps, q).items():
                area = mask.flatten(1).double().mean(dim=1)
                for attack, adversarial in known.attacked.items():
                    inside = energy((adversarial - known.test.images)[chosen], mask)
                    found.energies[name, q, part, attack] = inside, area
                    of = {"attack_map": name, "q": q, "main": q == options.q, "part": part, "attack": attack}
                    of["area"] = area.mean()
                    rows["energy"].append({**of, **_columns(inside)})
    facts = {"maps": [*looks.values(), *attack_maps.values()], "shares": shares, "importance": options.importance}
    for table, lines in rows.items():
        bench.rows(table, lambda lines=lines: lines, attacked=known.attacked, **facts)
    return found


def neutralising(bench: Bench, known: Measured, options: SimpleNamespace) -> Kept:
    """Table `neutralising`: accuracy on clean and gray box images with each part, or a control, taken out."""
    test, knowledge = known.test, known.knowledge
    received = {"clean": test.images, "gray_box": known.gray_box}
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
                margins = torch.stack(
                    [margins_without(fillers[fill], known.classifier, x, test.labels, holes) for holes in tried]
                )
                found[f"{part} {name}"] = (margins > 0).float().mean(dim=0)
                found[f"{part} {name} margin"] = margins.mean(dim=0)
                found[f"{part} {name} area"] = torch.stack(tried).float().mean(dim=(0, 2, 3))
        return found

    plain = {name: batched.right(known.classifier, x, test.labels).float() for name, x in received.items()}
    kept, row = Kept(plain, {}, {}), {"mode": "", "fill": "", "main": True, "q": 0.0, "part": "nothing", "area": 0.0}
    rows = [row | _prefixed("clean_", plain["clean"]) | _prefixed("gray_box_", plain["gray_box"])]
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
            row = {"mode": mode, "fill": fill, "main": fill == options.fill, "q": q, "part": part}
            row["area"] = found[f"{part} clean area"].mean()
            for name in received:
                kept.right[mode, fill, q, part, name] = found[f"{part} {name}"]
                kept.margins[mode, fill, q, part, name] = found[f"{part} {name} margin"]
                row[f"{name}_margin"] = found[f"{part} {name} margin"].mean()
                row |= _prefixed(f"{name}_", found[f"{part} {name}"])
            rows.append(row)
    facts = {str(key): [right, kept.margins[key]] for key, right in kept.right.items()}
    bench.rows("neutralising", lambda: rows, values=facts, plain=plain)
    return kept


def adaptive(bench: Bench, known: Measured, options: SimpleNamespace) -> Stood:
    """Table `adaptive`: accuracy of each defence under each attacker, judged by the defence itself; worst case last."""
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
    everything, rows = {}, []
    for (mode, part, q), defended in defences.items():
        how = {
            "eps": known.eps,
            "steps": options.steps,
            "losses": list(options.losses),
            "restarts": options.restarts,
            "restart_steps": options.restart_steps,
            "temperature": options.temperature,
            "seed": bench.seed,
        }
        stood = {}
        if defended.has_purifier:
            stood["gray_box"] = batched.right(defended, known.gray_box, test.labels, BATCH)
        for attacker in bench.each(offered(defended), f"{mode} {part} {q}"):

            def make(attacker=attacker, defended=defended, how=how) -> dict[str, Tensor]:
                crafted = craft(attacker, defended, *test, **how)
                return {
                    "right": batched.right(defended, crafted, test.labels, BATCH),
                    "length": (crafted - test.images).flatten(1).norm(dim=1),
                }

            found = bench.tensors(
                "attacked", make, defended=defended, attacker=attacker, images=test.images, labels=test.labels, **how
            )
            stood[attacker] = found["right"]
        stood["worst_case"] = torch.stack(list(stood.values())).all(dim=0)
        everything[mode, part, q] = stood
        of = {"mode": mode, "part": part, "q": q, "main": q in (options.q, 0.0)}
        rows += [
            {**of, "attacker": attacker, "eps": known.eps, **_columns(values)} for attacker, values in stood.items()
        ]
    bench.rows("adaptive", lambda: rows, right={str(key): right for key, right in everything.items()}, eps=known.eps)
    return everything


def _shares(options: SimpleNamespace) -> list[float]:
    return sorted({*options.sweep, options.q})


def of_images(values: Tensor) -> Estimate:
    """The mean over images [n]: of right or not with Wilson's interval, of other values with the bootstrap's."""
    values = values.double().cpu()
    if ((values == 0) | (values == 1)).all():
        return share(int(values.sum()), len(values))
    return mean(values)


def _columns(values: Tensor) -> dict[str, Any]:
    found = of_images(values)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _prefixed(prefix: str, values: Tensor) -> dict[str, Any]:
    return {prefix + name: value for name, value in _columns(values).items()}
