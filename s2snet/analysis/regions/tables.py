"""The tables of study=regions, and their values of each image, from which the claims are decided."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench
from s2snet.analysis.intervals import per_image
from s2snet.analysis.regions import attackers, measures
from s2snet.analysis.regions.claims import Attacked, Neutralised, Overlap
from s2snet.analysis.regions.inputs import Inputs
from s2snet.analysis.regions.measures import CONTROLS, MODES, PARTS
from s2snet.models import Defended
from s2snet.models.fills import FILLS


def overlap(bench: Bench, known: Inputs, importance: str, q: float, shares: Sequence[float]) -> Overlap:
    """Fill `overlap` (of regions), `correlation` (of maps) and `energy` (of the perturbation in each part).

    They are over the images that the classifier gets right and every minimal attack fools.
    """
    chosen = known.fooled
    attack_maps = {"oracle": known.oracle[chosen], "agnostic": known.agnostic[chosen]}
    looks = {name: maps[chosen] for name, maps in known.importance.items()}
    values, rows = Overlap({}, {}, {}), {"overlap": [], "correlation": [], "energy": []}
    for first, second in [*((a, b) for a in looks for b in attack_maps), ("agnostic", "oracle")]:
        pair = looks.get(first, attack_maps.get(first)), attack_maps[second]
        alike = bench.tensors("pair", lambda pair=pair: measures.similarity(*pair, shares), maps=pair, shares=shares)
        for control, others in (("", ""), ("other image", "others ")):
            values.correlations[first, second, control] = _numpy(alike[f"{others}rank"])
            of = {"first": first, "second": second, "control": control}
            rows["correlation"].append({**of, **_columns(alike[f"{others}rank"])})
        for share in shares:
            for control, others in (("", ""), ("random", "random "), ("other image", "others ")):
                values.overlaps[first, second, share, control] = _numpy(alike[f"{others}{share}"])
                main = first == importance and second == "oracle"
                of = {"first": first, "second": second, "main": main, "q": share, "control": control}
                rows["overlap"].append({**of, **_columns(alike[f"{others}{share}"])})
    for name, maps in attack_maps.items():
        for share in shares:
            for part, mask in measures.partition(looks[importance], maps, share).items():
                area = mask.flatten(1).double().mean(dim=1)
                for attack, adversarial in known.attacked.items():
                    inside = measures.energy((adversarial - known.test.images)[chosen], mask)
                    values.energies[name, share, part, attack] = _numpy(inside), _numpy(area)
                    of = {"attack_map": name, "q": share, "main": share == q, "part": part, "attack": attack}
                    of["area"] = area.mean()
                    rows["energy"].append({**of, **_columns(inside)})
    facts = {"maps": [*looks.values(), *attack_maps.values()], "shares": shares, "importance": importance}
    for table, lines in rows.items():
        bench.rows(table, lambda lines=lines: lines, attacked=known.attacked, **facts)
    return values


def neutralising(bench: Bench, known: Inputs, q: float, shares: Sequence[float], fill: str, draws: int) -> Neutralised:
    """Fill `neutralising`: the accuracy on clean and gray box images with each part, or a control, removed."""
    test, masks = known.test, known.masks
    received = {"clean": test.images, "gray_box": known.gray_box}
    purifier = masks.per_input(q)
    maps = {}
    for name, x in received.items():
        own = bench.tensors("own_maps", lambda x=x: measures.own_maps(purifier, x), purifier=purifier, images=x)
        maps[name] = own["importance"], own["attack"]
    fillers = {name: masks.static(masks.shared("static", "V", q), name) for name in FILLS}

    def measured(mode: str, filler: str, share: float) -> dict[str, Tensor]:
        values = {}
        for name, x in received.items():
            for part in (*PARTS, *CONTROLS):
                holes = [
                    masks.holes(mode, part, share, x, maps[name], seed)
                    for seed in range(draws if part in CONTROLS else 1)
                ]
                margins = torch.stack(
                    [
                        measures.margins_without(fillers[filler], known.classifier, x, test.labels, hole)
                        for hole in holes
                    ]
                )
                values[f"{part} {name}"] = (margins > 0).float().mean(dim=0)
                values[f"{part} {name} margin"] = margins.mean(dim=0)
                values[f"{part} {name} area"] = torch.stack(holes).float().mean(dim=(0, 2, 3))
        return values

    plain = {name: batched.right(known.classifier, x, test.labels).float() for name, x in received.items()}
    right, margins, row = {}, {}, {"mode": "", "fill": "", "main": True, "q": 0.0, "part": "nothing", "area": 0.0}
    rows = [row | _prefixed("clean_", plain["clean"]) | _prefixed("gray_box_", plain["gray_box"])]
    cells = [(mode, fill, share) for mode in MODES for share in shares]
    cells += [(mode, filler, q) for mode in MODES for filler in FILLS if filler != fill]
    for mode, filler, share in bench.track(cells, "removing parts"):
        values = bench.tensors(
            "kept",
            lambda mode=mode, filler=filler, share=share: measured(mode, filler, share),
            filler=fillers[filler], mode=mode, q=share, images=list(received.values()), labels=test.labels,
            means=[*masks.means["static"], *masks.means["per_class"]], maps=[*maps["clean"], *maps["gray_box"]],
            classifier=known.classifier, draws=draws,
        )  # fmt: skip
        for part in (*PARTS, *CONTROLS):
            row = {"mode": mode, "fill": filler, "main": filler == fill, "q": share, "part": part}
            row["area"] = values[f"{part} clean area"].mean()
            for name in received:
                right[mode, filler, share, part, name] = values[f"{part} {name}"]
                margins[mode, filler, share, part, name] = values[f"{part} {name} margin"]
                row[f"{name}_margin"] = values[f"{part} {name} margin"].mean()
                row |= _prefixed(f"{name}_", values[f"{part} {name}"])
            rows.append(row)
    facts = {str(key): [one, margins[key]] for key, one in right.items()}
    bench.rows("neutralising", lambda: rows, values=facts, plain=plain)
    return Neutralised(*({key: _numpy(one) for key, one in part.items()} for part in (plain, right, margins)))


def adaptive(bench: Bench, known: Inputs, q: float, shares: Sequence[float], attack: dict[str, Any]) -> Attacked:
    """Fill `adaptive`: the accuracy of each defence under each attacker, judged by itself, and in the worst case.

    `attack` are the options of `attackers.craft` that all attackers share.
    """
    test, masks = known.test, known.masks
    defences: dict[tuple[str, str, float], Defended] = {
        ("undefended", "nothing", 0.0): Defended(None, known.classifier)
    }
    for share in shares:
        defences["static", "V", share] = Defended(masks.static(masks.shared("static", "V", share)), known.classifier)
    for mode, part in (("static", "random"), ("static", "shifted"), ("per_class", "V")):
        defences[mode, part, q] = Defended(masks.static(masks.shared(mode, part, q)), known.classifier)
    defences["per_input", "V", q] = Defended(masks.per_input(q), known.classifier)
    options = {"eps": known.eps, "seed": bench.seed, **attack}
    results, rows = {}, []
    for (mode, part, share), defended in defences.items():
        right = {}
        if defended.has_purifier:
            right["gray_box"] = batched.right(defended, known.gray_box, test.labels, attackers.BATCH)
        for attacker in bench.track(attackers.applicable(defended), f"{mode} {part} {share}"):

            def make(attacker=attacker, defended=defended) -> dict[str, Tensor]:
                crafted = attackers.craft(attacker, defended, *test, **options)
                return {
                    "right": batched.right(defended, crafted, test.labels, attackers.BATCH),
                    "length": (crafted - test.images).flatten(1).norm(dim=1),
                }

            facts = {"defended": defended, "attacker": attacker, "images": test.images, "labels": test.labels}
            right[attacker] = bench.tensors("attacked", make, **facts, **options)["right"]
        right["worst_case"] = torch.stack(list(right.values())).all(dim=0)
        results[mode, part, share] = right
        of = {"mode": mode, "part": part, "q": share, "main": share in (q, 0.0)}
        rows += [{**of, "attacker": name, "eps": known.eps, **_columns(values)} for name, values in right.items()]
    bench.rows("adaptive", lambda: rows, right={str(key): right for key, right in results.items()}, eps=known.eps)
    return {key: {name: _numpy(values) for name, values in right.items()} for key, right in results.items()}


def _numpy(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _columns(values: Tensor) -> dict[str, Any]:
    """Return the mean over images and its interval as columns of a row."""
    mean = per_image(_numpy(values))
    return {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}


def _prefixed(prefix: str, values: Tensor) -> dict[str, Any]:
    """Return the columns of `_columns` with a prefix."""
    return {prefix + name: value for name, value in _columns(values).items()}
