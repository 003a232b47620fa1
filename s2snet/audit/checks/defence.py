"""Checks of the defence: its answers must be consistent, and its gradients correct."""

from collections.abc import Iterator

from s2snet.audit.checks.finding import FAIL, NOT_APPLICABLE, PASS, WARN, Answer, grade, worst
from s2snet.audit.checks.record import Record, reads_probe

STRAIGHT_THROUGH = ("identity", "learned", "affine")
# Shares of a change that gradients do not account for (docs/results/audit). Sound classifiers of ten seeds, the
# released digits networks, ResNet-20 and 56 on CIFAR-10: 0.00 to 0.14. Pooling by indices, rounding, k winners: 0.97
# and more.
SOME_JUMPS, ALL_JUMPS = 0.35, 0.6


@reads_probe("randomness")
def randomness(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """The defence gives the same answer to the same images.

    Against a random defence one gradient is one draw, and an image that fools one draw need not fool the next. Measured
    with five forward passes and two gradients of the same images. Warns if logits differ by more than 1e-6 of the
    largest or gradients by more than 1e-4; fails above 1e-4 and 1e-2, unless the white box averaged over draws.

    Remedy: route eot, more draws, several seeds.
    """
    verdict = worst(grade(measured["logits"], 1e-6, 1e-4), grade(measured["gradients"], 1e-4, 1e-2))
    averaged = any(label[0] == defence["name"] and label[2] == "eot" for label in record.scores.parts)
    evidence = f"logits differ by {measured['logits']:.0e}, gradients by {measured['gradients']:.0e} of the largest"
    evidence += "; the white box averages over draws" if averaged else ""
    yield Answer(defence["name"], WARN if verdict == FAIL and averaged else verdict, evidence, "defence")


@reads_probe("state")
def test_time_state(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """An answer depends on its image alone, not on the batch or on earlier inputs.

    With BatchNorm in training mode, or a buffer that is updated, the module under attack is not the module that judges.
    Fails if a layer is in training mode, a forward pass writes a buffer, the batch changes logits by more than 1e-3 of
    the largest, or the order of calls by more than 1e-4; warns if the batch changes them by more than 1e-4. Batch and
    order are not compared for a random defence.

    Remedy: eval mode, and no state between calls.
    """
    verdict, evidence = PASS, []
    for name, fault in (("training", "in training mode"), ("buffers_written", "written by a forward pass")):
        if measured[name]:
            verdict = FAIL
            evidence.append(f"{fault}: {', '.join(measured[name])}")
    if ((record.probe(defence["name"], "randomness") or {}).get("logits") or 0.0) < 1e-6:
        verdict = worst(verdict, grade(measured["batch"], 1e-4, 1e-3), grade(measured["order"], 1e-4, 1e-4))
        batch, order = f"{measured['batch']:.0e}", f"{measured['order']:.0e}"
        evidence.append(f"logits change with the batch by {batch}, with the order by {order} of the largest")
    yield Answer(defence["name"], verdict, "; ".join(evidence), "defence")


@reads_probe("head")
def output_head(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """The defence returns logits.

    Probabilities saturate, and margins computed from them vanish. Fails if every row lies in [0, 1] and sums to 1.
    Log-probabilities pass, because their margins and ratios of differences equal those of the logits.

    Remedy: remove the softmax; attacks need the logits.
    """
    kind = "log-probabilities" if measured["log_probabilities"] else "logits"
    kind = "probabilities" if measured["probabilities"] else kind
    yield Answer(defence["name"], FAIL if measured["probabilities"] else PASS, f"returns {kind}", "classifier")


@reads_probe("head")
def saturated_logits(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """The largest logit does not lead by so much that float32 cross-entropy loses its gradient.

    If the largest logit leads by more than 16.6, its probability rounds to 1; beyond about 80 the gradient is 0 and an
    attack on plain cross-entropy does not move. Warns if the first happens on over 20 % of the images; fails if the
    second happens on over 1 %, unless an attack with another loss was run.

    Remedy: attack=[apgd_margin].
    """
    losses = {cell["options"].get("loss") for cell in record.run["cells"] if defence["name"] in cell["judges"]}
    lost = measured["lost"] > 0.01
    verdict = WARN if lost or measured["saturated"] > 0.2 else PASS
    if lost and not losses - {None, "cross_entropy"}:
        verdict = FAIL
    evidence = f"the largest logit leads by {measured['lead_median']:.1f} (median), by over 16.6 on "
    evidence += f"{measured['saturated']:.0%} of the images, by over 80 on {measured['lost']:.0%}"
    yield Answer(defence["name"], verdict, evidence, "classifier")


@reads_probe("gradients")
def zero_gradients(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """The margin has a gradient at every image and at a random point near it.

    An attack whose gradients are zero does not move, which looks like robustness. Fails if a gradient of the margin is
    exactly 0 or no gradient reaches the images; warns if one is shorter than 1e-12 or over 5 % of the gradients of
    plain cross-entropy are 0.

    Remedy: routes that replace this gradient (identity, learned, soft, smoothed) and a query attack.
    """
    suspect = measured["tiny"] or measured["cross_entropy_zero"] > 0.05
    verdict = FAIL if measured["zero"] or not measured["reaches_images"] else WARN if suspect else PASS
    evidence = f"zero at {measured['zero']:.0%}, vanishing at {measured['tiny']:.0%} of {measured['points']} points; "
    evidence += f"zero for cross-entropy at {measured['cross_entropy_zero']:.0%}"
    evidence = evidence if measured["reaches_images"] else "no gradient reaches the images"
    yield Answer(defence["name"], verdict, evidence, faulty_part(record, defence["name"]))


@reads_probe("gradients")
def nan_gradients(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """No logit and no gradient is NaN or infinite.

    A NaN logit never counts as correct, but a NaN gradient stops an attack silently. Covers the images, random points
    near them, the lightest and the darkest corner of the ball, and all judged answers. Fails on any.

    Remedy: find the layer that divides by zero or overflows.
    """
    name = defence["name"]
    judged = sum(int((rows.prediction == -1).sum()) for rows in record.rows if rows.naming["defence"] == name)
    gradients, logits = measured["non_finite_gradients"], measured["non_finite_logits"]
    evidence = f"not finite: {gradients} gradients and {logits} answers of the probe, {judged} judged answers"
    yield Answer(name, FAIL if gradients + logits + judged else PASS, evidence, faulty_part(record, name))


@reads_probe("differences")
def finite_differences(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """Gradients from autograd agree with central differences.

    A straight-through, rounding or hand-written backward pass is not the derivative. Compared in float64 at a random
    point of the ball, along random directions, at the best of three step lengths. Fails if the median relative error is
    over 1 %; warns if it is over 1 % for more than 10 % of the pairs, which means kinks everywhere, as max-pooling by
    indices has.

    Remedy: routes identity, learned, soft or smoothed, and a query attack.
    """
    parts = {part: measured[part] for part in ("purifier", "classifier", "whole") if part in measured}
    wrong = [part for part, value in parts.items() if value["median"] > 1e-2]
    kinked = [part for part, value in parts.items() if value["share_off"] > 0.1]
    errors = ", ".join(f"{part} {v['median']:.0e} ({v['share_off']:.0%} over 1 %)" for part, v in parts.items())
    verdict = FAIL if wrong else WARN if kinked else PASS
    yield Answer(defence["name"], verdict, f"median relative error: {errors}", (wrong or kinked or [""])[0])


@reads_probe("jumps")
def jumps(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """Along a short path, the defence changes by as much as its gradients add up to.

    This holds for every continuous function, with or without kinks. Pooling indices that change, rounding and
    k-winners-take-all jump, and no gradient shows a jump: an attack on such a surface follows only a small part of the
    change. Measured from random points of the ball over a quarter of the radius in random directions. Warns if more
    than 35 % of the change (median) is unaccounted for, fails above 60 %.

    Remedy: routes soft (for pooling indices), smoothed and learned, many restarts, and a query attack; never the exact
    gradient alone.
    """
    shares = ", ".join(
        f"{part} {measured[part]['median']:.0%}" for part in ("purifier", "classifier", "whole") if part in measured
    )
    verdict = grade(measured["whole"]["median"], SOME_JUMPS, ALL_JUMPS)
    part = faulty_part(record, defence["name"]) if verdict != PASS else ""
    yield Answer(defence["name"], verdict, f"change that no gradient accounts for: {shares}", part)


@reads_probe("curvature")
def curvature(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """A step along the sign of the gradient raises the margin about as much as the gradient predicts.

    If a step of a quarter of the radius achieves a tenth of the prediction or less, the surface is jagged or strongly
    curved and the gradient is no guide. Warns below 0.3, fails below 0.1; sound convolutional networks reach 0.5.

    Remedy: routes soft and smoothed; more and smaller steps, restarts.
    """
    if measured["quarter"] is None:
        yield Answer(defence["name"], NOT_APPLICABLE, "there is no gradient to follow (zero_gradients)")
        return
    ratio = measured["quarter"]
    evidence = f"actual over predicted rise: {measured['one_level']:.2f} at 1/255, {ratio:.2f} at a quarter radius"
    verdict = FAIL if ratio < 0.1 else WARN if ratio < 0.3 else PASS
    yield Answer(defence["name"], verdict, f"{evidence} (medians)", faulty_part(record, defence["name"]))


@reads_probe("ascent")
def ascent(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """At least one route's gradient points uphill better than chance.

    A direction that is no better than a random one is not an attack. For each route, a step of a quarter of the radius
    along the sign of its gradient competes with three random sign steps and the opposite step; the largest margin of
    the real defence wins. The best route decides: warns if it wins on under 90 % of the images, fails under 75 %.

    Remedy: routes soft, smoothed, learned; a query attack.
    """
    if not measured:
        return
    shares = {route: value["share"] for route, value in sorted(measured.items())}
    evidence = ", ".join(f"{route} {share:.0%}" for route, share in shares.items())
    n = next(iter(measured.values()))["images"]
    verdict = grade(1 - max(shares.values()), 0.1, 0.25)
    yield Answer(defence["name"], verdict, f"{evidence} (n={n})", faulty_part(record, defence["name"]))


@reads_probe("ascent")
def surrogate_valid(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """Each straight-through route points uphill.

    BPDA with the identity is meaningful only for purifiers close to the identity. Warns if a route that replaces the
    purifier's backward pass (identity, learned, affine) wins on under 75 % of the images in `ascent`: its accuracy must
    not be reported as the white-box result.

    Remedy: report the minimum over all routes, never one of these alone.
    """
    shares = {route: measured[route]["share"] for route in STRAIGHT_THROUGH if route in measured}
    if not shares:
        return
    moved = (record.probe(defence["name"], "moved") or {}).get("median")
    evidence = ", ".join(f"{route} {share:.0%}" for route, share in shares.items())
    evidence += f"; the purifier moves an image by {moved:.0%} of its norm" if moved is not None else ""
    yield Answer(defence["name"], WARN if min(shares.values()) < 0.75 else PASS, evidence, "attack")


@reads_probe("inner")
def inner_optimisation(record: Record, defence: dict, measured: dict) -> Iterator[Answer]:
    """A forward pass is a single pass.

    A defence that optimises or iterates inside its forward pass is not differentiated by a plain backward pass. Fails
    if a forward pass computes gradients; warns if a layer with weights runs more than once.

    Remedy: differentiate through the loop, or use routes learned and smoothed and a query attack.
    """
    calls, repeated = measured["autograd_calls"], measured["called_again"]
    evidence = f"{calls} gradient calls in a forward pass" if calls else "one pass"
    evidence = f"run more than once: {', '.join(repeated)}" if repeated and not calls else evidence
    yield Answer(defence["name"], FAIL if calls else WARN if repeated else PASS, evidence, "defence")


def admission(record: Record) -> Iterator[Answer]:
    """The defence meets the rules of RobustBench: deterministic, with gradients, and without an inner loop.

    A defence that breaks one of them cannot be compared there. Warns and names the broken rule; such a defence may
    still be sound.

    Remedy: compare it with others of its kind.
    """
    for defence in record.defences:
        probes = {key: record.probe(defence["name"], key) for key in ("randomness", "gradients", "inner")}
        if any(measured is None or "error" in measured for measured in probes.values()):
            continue
        rules = {
            "random answers": probes["randomness"]["logits"] > 1e-4,
            "zero gradients": probes["gradients"]["zero"] > 0,
            "optimises in its forward pass": probes["inner"]["autograd_calls"] > 0,
        }
        broken = [rule for rule, is_broken in rules.items() if is_broken]
        yield Answer(defence["name"], WARN if broken else PASS, ", ".join(broken) or "admitted", "defence")


def faulty_part(record: Record, name: str) -> str:
    """Return the part whose gradient is absent, wrong or misses its jumps; `defence` if neither part stands out."""
    differences = record.probe(name, "differences") or {}
    jumps = record.probe(name, "jumps") or {}
    for part in ("purifier", "classifier"):
        value = differences.get(part, {})
        wrong = value.get("median", 0) > 1e-2 or value.get("share_off", 0) > 0.1 or value.get("flat", 0) > 0
        if wrong or jumps.get(part, {}).get("median", 0) > SOME_JUMPS:
            return part
    return "defence"
