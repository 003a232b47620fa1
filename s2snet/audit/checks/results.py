"""Checks of the results: the rows, the table and the images must be what they claim to be."""

from collections.abc import Iterator

import numpy as np

from s2snet.audit.checks.finding import FAIL, NOT_APPLICABLE, PASS, WARN, Answer, grade, worst
from s2snet.audit.checks.record import Record, reads_probe
from s2snet.evaluation.schema import CLEAN, WORST_CASE

ROUNDING = 1e-6  # allowed beyond the radius for foreign images, which were rounded when they were made


def ball_and_box(record: Record) -> Iterator[Answer]:
    """Every adversarial image lies within its radius.

    An image outside the ball was made with a larger budget than the one reported. The engine computes the distance of
    every row in float64; the box [0, 1] is enforced by the referee before a row is written. Fails if any row of our
    attacks exceeds its budget at all, or if a row of foreign images exceeds it by more than 1e-6.

    Remedy: fix the projection; images outside the ball do not count.
    """
    violations, rows = [], 0
    for cell in record.rows:
        budget = cell.naming["budget"]
        if not cell.naming["norm"] or np.isinf(budget):
            continue
        rows += len(cell.distance)
        beyond = cell.distance > budget + (ROUNDING if cell.naming["threat"] == "foreign" else 0.0)
        if beyond.any():
            violations.append(
                f"{cell.naming['attack']} at {budget:.6g}: {beyond.sum()} images, up to {cell.distance.max():.6g}"
            )
    evidence = "; ".join(violations[:3]) or f"all {rows} rows are within their radius"
    yield Answer("", FAIL if violations else PASS, evidence, "attack")


@reads_probe("recomputed")
def recomputed(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """Judging the same images again gives the same predictions.

    A number that cannot be reproduced means nothing. Stored adversarial images of one cell are judged again, once in a
    different batch and once one by one. A changed prediction counts unless the two largest logits are within 1e-4 of
    each other, relative to the largest. Fails on any change.

    Remedy: the judged model is random, keeps state, or is not the one that was reported.
    """
    ties = f", not counting {measured['ties']} near ties" if measured["ties"] else ""
    evidence = f"{measured['differ']} of {measured['images']} predictions differ{ties}"
    yield Answer(defence["name"], FAIL if measured["differ"] else PASS, evidence, "defence")


def label_alignment(record: Record) -> Iterator[Answer]:
    """Labels and classes are in the same order.

    Labels shifted by one make a classifier look broken without an attack, and every attack look weak. The clean
    predictions are compared with the labels and with every cyclic shift of them. Fails if a shift fits better by more
    than three standard errors.

    Remedy: put the labels and the classifier's classes in the same order.
    """
    classes = max(len(record.run["classes"]), 1)
    for cell in record.rows:
        if cell.naming["threat"] != CLEAN:
            continue
        matches = [float(((cell.label + shift) % classes == cell.prediction).mean()) for shift in range(classes)]
        best = int(np.argmax(matches))
        n = len(cell.label)
        by_chance = 3 * (max(matches[0], 1 / classes) * (1 - matches[0]) / max(n, 1)) ** 0.5  # three standard errors
        shifted = matches[best] > matches[0] + by_chance
        evidence = f"clean accuracy {matches[0]:.1%} (n={n})"
        evidence += f"; with labels shifted by {best} it is {matches[best]:.1%}" if shifted else ""
        yield Answer(cell.naming["defence"], FAIL if shifted else PASS, evidence, "data")


def input_range(record: Record) -> Iterator[Answer]:
    """Images lie in [0, 1].

    Radii are in pixel units; on normalised pixels, 8/255 is a different radius. Fails on any pixel outside [0, 1]. The
    evidence also states whether the pixels lie on the 8-bit grid (those of resized images do not).

    Remedy: move the normalisation into the classifier.
    """
    measured = record.probes.get("data")
    if measured is not None:
        grid = "off" if measured["off_grid"] else "on"
        evidence = f"{measured['outside']:.1%} of pixels outside [0, 1]; {grid} the 8-bit grid (n={measured['read']})"
        yield Answer("", FAIL if measured["outside"] else PASS, evidence, "data")


def counted_passes(record: Record) -> Iterator[Answer]:
    """Attacks make as many passes as their options claim.

    An attack that takes one step instead of forty makes any defence look robust. The engine counts the passes of every
    image. An image that was not fooled, or that may not leave early, must have had the number of passes that steps,
    restarts and draws amount to: backward passes, or forward passes if the attack takes no gradients. Fails if fewer
    were made, or fewer than `steps`; warns if over 5 % more were made.

    Remedy: check steps, restarts and early leaving of the attack.
    """
    for defence in record.defences:
        fewer, more, checked = [], [], 0
        for rows in record.rows:
            cell = record.cells.get(rows.naming["crafted"])
            if rows.naming["defence"] != defence["name"] or cell is None or cell["budget"] is None:
                continue
            if cell.get("passes") is None:
                continue
            early = cell["leave_early"]
            counted = rows.correct if early else np.ones(len(rows.correct), bool)
            if not counted.any():
                continue
            checked += 1
            kind = "backward" if cell["passes"][1] else "forward"
            made = (rows.backwards if kind == "backward" else rows.forwards)[counted]
            claimed = max(cell["passes"][kind == "backward"], cell["options"].get("steps") or 0)
            least, mean = float(made.min()), float(made.mean())
            if least < claimed * (1 - 1e-6):
                fewer.append(f"{cell['route']} {cell['attack']}: {least:.4g} {kind} passes of {claimed:.4g}")
            elif mean > 1.05 * claimed and not early:  # an image that left too early is attacked once more
                more.append(f"{cell['route']} {cell['attack']}: {mean:.4g} {kind} passes of {claimed:.4g}")
        if checked:
            evidence = "; ".join((fewer or more)[:3]) or f"{checked} cells made the passes that they claim"
            yield Answer(defence["name"], FAIL if fewer else WARN if more else PASS, evidence, "attack")
        else:
            yield Answer(defence["name"], NOT_APPLICABLE, "every image of every cell left early")


def step_budget(record: Record) -> Iterator[Answer]:
    """The steps together can reach the edge of the ball, and no single step overshoots it.

    If the steps add up to less than the radius, the attack searches a smaller ball than the one reported. Fails if
    steps x step_size is less than one radius or a single step is more than two radii; warns if steps x step_size is
    less than two radii.

    Remedy: step_size=null uses 2.5 eps / steps.
    """
    verdict, evidence, checked = PASS, [], 0
    for cell in record.cells.values():
        steps, size, eps = cell["options"].get("steps"), cell["options"].get("step_size"), cell["budget"]
        if not steps or not size or not eps:  # without step_size, the step follows from the radius
            continue
        checked += 1
        reach = steps * size / eps
        of_cell = FAIL if reach < 1 or size > 2 * eps else WARN if reach < 2 else PASS
        if of_cell != PASS:
            evidence.append(f"{cell['attack']} at {eps:.4g}: {steps} steps of {size / eps:.3g} radii")
        verdict = worst(verdict, of_cell)
    passed = f"{checked} cells with a given step size reach the edge" if checked else "steps follow from the radius"
    yield Answer("", verdict, "; ".join(sorted(set(evidence))[:3]) or passed, "attack")


def denominators(record: Record) -> Iterator[Answer]:
    """Accuracy is computed over all selected images, and there are enough of them.

    Accuracy over the correctly classified images only hides what the defence itself breaks; few images give a wide
    interval. Fails if a finished line of the table covers fewer than all images; warns if the 95 % interval of a clean
    or worst-case accuracy is wider than 5 points in either direction.

    Remedy: evaluate more images: about 400 for 5 points, 2,500 for 2.
    """
    selected = len(record.scores.selected)
    for defence in record.defences:
        lines = [line for line in record.table if line["defence"] == defence["name"] and line["status"] == "done"]
        fewer = [line for line in lines if line["images"] != selected]
        headline = [line for line in lines if line["threat"] in (WORST_CASE, CLEAN) and line["accuracy"] is not None]
        widest = max(((line["high"] - line["low"]) / 2 for line in headline), default=0.0)
        yield Answer(
            defence["name"],
            FAIL if fewer else grade(widest, 0.05, 1.0),
            f"{len(fewer)} lines cover fewer than the {selected} selected images"
            if fewer
            else f"n={selected}, at most {100 * widest:.1f} points in either direction",
            "data",
        )


def worst_case(record: Record) -> Iterator[Answer]:
    """The headline is the minimum per image over all cells, and no cell is missing.

    Both the mean of several accuracies and the lowest of them are higher than what an attacker achieves who picks the
    best attack for each image. The worst case is recomputed from the rows and compared with the table. Fails if they
    differ; warns if cells failed, because the number is then only an upper bound.

    Remedy: fix the cells that failed.
    """
    for defence in record.defences:
        name = defence["name"]
        wrong, incomplete, checked = [], [], 0
        for norm, eps in record.budgets(name):
            line = record.headline[name, WORST_CASE, norm, eps]
            if line["status"] != "done":
                incomplete.append(line["status"])
            elif (line["seeds"] or 1) == 1:
                checked += 1
                fooled = record.fooled(name, norm, eps, lambda *_: True)
                expected = float((record.clean_correct(name) & ~fooled).mean())
                if abs(expected - line["accuracy"]) > 1e-6:
                    wrong.append(f"{norm} {eps:.4g}: {line['accuracy']:.4f} in the table, {expected:.4f} in the rows")
        evidence = "; ".join((wrong or incomplete)[:2]) or f"{checked} worst cases equal the minimum per image"
        yield Answer(name, FAIL if wrong else WARN if incomplete else PASS, evidence, "attack")


def leakage(record: Record) -> Iterator[Answer]:
    """No test image is in the training set.

    A purifier can return an image that it has seen in training. Exact copies are found by a hash of their pixels, and
    copies that differ in brightness, contrast or slight noise by their correlation (above 0.997). Shifted or flipped
    copies are not found. Fails on an exact copy, warns on a near copy.

    Remedy: remove these images from the training set and train again.
    """
    measured = record.probes.get("data")
    if measured is not None and measured["train_read"]:
        equal, near = measured["in_training_count"], len(measured.get("nearly_in_training", ()))
        evidence = f"{equal} of {measured['read']} test images are among {measured['train_read']} training images"
        evidence += f", {near} nearly so" if near > equal else ""
        yield Answer("", FAIL if equal else WARN if near else PASS, evidence, "data")
