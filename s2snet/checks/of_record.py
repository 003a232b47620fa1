"""Checks of the record: whether rows, table and images are what they claim to be."""

from collections.abc import Iterator

import numpy as np

from s2snet.checks.finding import FAIL, NOT_APPLICABLE, PASS, WARN, Answer, graded, gravest
from s2snet.checks.record import Record, probed
from s2snet.evaluation.schema import CLEAN, WORST_CASE

ULP = 1e-6  # images from elsewhere were rounded by whoever made them


def ball_and_box(record: Record) -> Iterator[Answer]:
    """Every adversarial image lies within its radius.

    One step outside the ball and the number is about another threat. The distance of every row was computed in float64
    when it was judged; the box [0, 1] is held by the referee before a row exists. Fails where a row of our attacks is
    beyond its budget at all, or one from elsewhere by more than 1e-6.

    Remedy: fix the projection; images that leave the ball count for nothing.
    """
    over, rows = [], 0
    for cell in record.rows:
        budget = cell.naming["budget"]
        if not cell.naming["norm"] or np.isinf(budget):
            continue
        rows += len(cell.distance)
        beyond = cell.distance > budget + (ULP if cell.naming["threat"] == "foreign" else 0.0)
        if beyond.any():
            over.append(
                f"{cell.naming['attack']} at {budget:.6g}: {beyond.sum()} images, up to {cell.distance.max():.6g}"
            )
    yield Answer(
        "", FAIL if over else PASS, "; ".join(over[:3]) or f"all {rows} rows are within their radius", "attack"
    )


@probed("recomputed")
def recomputed(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """Judged again, in other batches, the same images get the same answers.

    A number that does not repeat is not a number. Kept images of one cell are judged anew, in another batch and one by
    one. A difference counts where the first two logits are more than 1e-4 of the largest apart. Fails on any.

    Remedy: the judged model is random, keeps state, or is not the reported one.
    """
    ties = f", {found['ties']} near ties aside" if found["ties"] else ""
    said = f"{found['differ']} of {found['images']} verdicts differ{ties}"
    yield Answer(defence["name"], FAIL if found["differ"] else PASS, said, "defence")


def label_alignment(record: Record) -> Iterator[Answer]:
    """Labels and classes are in step.

    Labels shifted by one make a classifier look broken without an attack, and every attack weak. The clean predictions
    are compared with the labels and with all cyclic shifts of them. Fails where another shift fits better by
    more than luck would (three standard errors).

    Remedy: bring the labels and the classifier's classes into one order.
    """
    classes = max(len(record.run["classes"]), 1)
    for cell in record.rows:
        if cell.naming["threat"] != CLEAN:
            continue
        fits = [float(((cell.label + shift) % classes == cell.prediction).mean()) for shift in range(classes)]
        best = int(np.argmax(fits))
        n = len(cell.label)
        chance = 3 * (max(fits[0], 1 / classes) * (1 - fits[0]) / max(n, 1)) ** 0.5  # what luck makes of a few images
        wrong = fits[best] > fits[0] + chance
        said = f"clean accuracy {fits[0]:.1%} (n={len(cell.label)})"
        said += f"; labels shifted by {best} fit {fits[best]:.1%}" if wrong else ""
        yield Answer(cell.naming["defence"], FAIL if wrong else PASS, said, "data")


def input_range(record: Record) -> Iterator[Answer]:
    """Images lie in [0, 1].

    Radii are in pixel units; on normalised pixels 8/255 is another radius. Fails on any pixel outside; says whether the
    pixels are on the grid of 8 bits (resized images are not).

    Remedy: put the normalisation into the classifier.
    """
    found = record.probes.get("data")
    if found is not None:
        grid = "off" if found["off_grid"] else "on"
        said = f"{found['outside']:.1%} of pixels outside [0, 1]; {grid} the grid of 8 bits (n={found['read']})"
        yield Answer("", FAIL if found["outside"] else PASS, said, "data")


def counted_passes(record: Record) -> Iterator[Answer]:
    """Attacks made the passes that their options claim.

    One step named as forty makes anything robust. The engine counts the passes of every image. An image that was not
    turned, or may not leave early, must have had what steps, restarts and draws amount to; backward passes, or forward
    ones of an attack that takes no gradients. Fails where fewer were made, or fewer than `steps` says; warns where 5 %
    more were.

    Remedy: look at steps, restarts and early leaving of the attack.
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
            said = f"{cell['route']} {cell['attack']}: {least:.4g} {kind} passes of {claimed:.4g}"
            if least < claimed * (1 - 1e-6):
                fewer.append(said)
            elif mean > 1.05 * claimed and not early:  # an image that leaves too early is attacked once more
                more.append(f"{cell['route']} {cell['attack']}: {mean:.4g} {kind} passes of {claimed:.4g}")
        if checked:
            said = "; ".join((fewer or more)[:3]) or f"{checked} cells made the passes they claim"
            yield Answer(defence["name"], FAIL if fewer else WARN if more else PASS, said, "attack")
        else:
            yield Answer(defence["name"], NOT_APPLICABLE, "every image of every cell left early")


def step_budget(record: Record) -> Iterator[Answer]:
    """The steps together can reach the rim of the ball, and no step overshoots it.

    Steps that add up to less than the radius attack a smaller ball than the one named. Fails where steps x step_size is
    under one radius or a step is over two; warns under two.

    Remedy: step_size=null takes 2.5 eps / steps.
    """
    verdict, said, checked = PASS, [], 0
    for cell in record.cells.values():
        steps, size, eps = cell["options"].get("steps"), cell["options"].get("step_size"), cell["budget"]
        if not steps or not size or not eps:  # without a size of its own a step follows from the radius
            continue
        checked += 1
        reach = steps * size / eps
        here = FAIL if reach < 1 or size > 2 * eps else WARN if reach < 2 else PASS
        if here != PASS:
            said.append(f"{cell['attack']} at {eps:.4g}: {steps} steps of {size / eps:.3g} radii")
        verdict = gravest(verdict, here)
    fine = f"{checked} cells with a step size of their own reach the rim" if checked else "steps follow from the radius"
    yield Answer("", verdict, "; ".join(sorted(set(said))[:3]) or fine, "attack")


def denominators(record: Record) -> Iterator[Answer]:
    """Accuracy is over all selected images, and there are enough of them.

    Accuracy over the images that were right before hides what the defence itself breaks; few images say little. Fails
    where a finished line is over fewer than all, warns where the 95 % interval of a worst case is over 5 points
    either way.

    Remedy: evaluate more images: about 400 for 5 points, 2,500 for 2.
    """
    selected = len(record.scores.selected)
    for defence in record.defences:
        lines = [line for line in record.table if line["defence"] == defence["name"] and line["status"] == "done"]
        fewer = [line for line in lines if line["images"] != selected]
        said = [line for line in lines if line["threat"] in (WORST_CASE, CLEAN) and line["accuracy"] is not None]
        widest = max(((line["high"] - line["low"]) / 2 for line in said), default=0.0)
        yield Answer(
            defence["name"],
            FAIL if fewer else graded(widest, 0.05, 1.0),
            f"{len(fewer)} lines over fewer than the {selected} selected images"
            if fewer
            else f"n={selected}, at most {100 * widest:.1f} points either way",
            "data",
        )


def worst_case(record: Record) -> Iterator[Answer]:
    """The headline is the minimum per image over all cells, and none is missing.

    A mean of accuracies, or the best of several attacks, is above what one attacker gets who chooses per image.
    Computed anew from the rows and compared with the table. Fails where the two differ, warns where cells failed: the
    number is then an upper bound.

    Remedy: mend the cells that failed.
    """
    for defence in record.defences:
        name = defence["name"]
        wrong, incomplete, checked = [], [], 0
        for norm, eps in record.budgets(name):
            line = record.speaking[name, WORST_CASE, norm, eps]
            if line["status"] != "done":
                incomplete.append(line["status"])
            elif (line["seeds"] or 1) == 1:
                checked += 1
                fell = record.turned(name, norm, eps, lambda *_: True)
                expected = float((record.clean_right(name) & ~fell).mean())
                if abs(expected - line["accuracy"]) > 1e-6:
                    wrong.append(f"{norm} {eps:.4g}: {line['accuracy']:.4f} in the table, {expected:.4f} in the rows")
        said = "; ".join((wrong or incomplete)[:2]) or f"{checked} worst cases are the minimum per image of their rows"
        yield Answer(name, FAIL if wrong else WARN if incomplete else PASS, said, "attack")


def leakage(record: Record) -> Iterator[Answer]:
    """No test image is a training image.

    A purifier that has seen an image can give it back. Pixels are compared by hash; copies that differ by brightness,
    contrast or a trace of noise by correlation (over 0.997), shifted or flipped ones are not found. Fails on an equal
    image, warns on a near one.

    Remedy: take the images out of the training set and train again.
    """
    found = record.probes.get("data")
    if found is not None and found["train_read"]:
        equal, near = found["in_training_count"], len(found.get("nearly_in_training", ()))
        said = f"{equal} of {found['read']} test images among {found['train_read']} training images"
        said += f", {near} nearly so" if near > equal else ""
        yield Answer("", FAIL if equal else WARN if near else PASS, said, "data")
