"""Checks of the defence itself: whether it answers alike, and whether its gradients tell the truth."""

from collections.abc import Iterator

from s2snet.checks.finding import FAIL, NOT_APPLICABLE, PASS, WARN, Answer, graded, gravest
from s2snet.checks.record import Record, probed

STRAIGHT_THROUGH = ("identity", "learned", "affine")
# Shares of a change that gradients leave open (docs/results/audit). Sound classifiers of ten seeds, the released digits
# networks, ResNet-20 and 56 on CIFAR-10: 0.00 to 0.14. Pooling by indices, rounding, k winners: 0.97 and more.
SOME_JUMPS, ALL_JUMPS = 0.35, 0.6


@probed("randomness")
def randomness(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """The defence answers the same images the same way.

    Against a defence that draws, one gradient is one draw, and one lucky draw fools nobody twice. Five forwards and
    two gradients of the same images. Warns where logits differ by 1e-6 of the largest or gradients by 1e-4; fails
    from 1e-4 and 1e-2 on, unless the white box averaged over draws.

    Remedy: route eot, more draws, several seeds.
    """
    verdict = gravest(graded(found["logits"], 1e-6, 1e-4), graded(found["gradients"], 1e-4, 1e-2))
    averaged = any(label[0] == defence["name"] and label[2] == "eot" for label in record.scores.parts)
    said = f"logits differ by {found['logits']:.0e}, gradients by {found['gradients']:.0e} of the largest"
    said += "; the white box averages over draws" if averaged else ""
    yield Answer(defence["name"], WARN if verdict == FAIL and averaged else verdict, said, "defence")


@probed("state")
def test_time_state(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """An answer depends on its image alone: not on the batch, nor on what was asked before.

    BatchNorm in training mode, or a buffer that remembers, makes the attacked module another one than the judge.
    Fails where a layer is in training mode, a forward writes a buffer, the batch matters by 1e-3 of the largest
    logit, or the order by 1e-4; warns where the batch matters by 1e-4. A defence that answers at random is not asked
    for the last two.

    Remedy: eval mode, and no state between calls.
    """
    verdict, said = PASS, []
    for name, words in (("training", "in training mode"), ("buffers_written", "written by a forward")):
        if found[name]:
            verdict = FAIL
            said.append(f"{words}: {', '.join(found[name])}")
    if ((record.probe(defence["name"], "randomness") or {}).get("logits") or 0.0) < 1e-6:
        verdict = gravest(verdict, graded(found["batch"], 1e-4, 1e-3), graded(found["order"], 1e-4, 1e-4))
        said.append(
            f"the batch matters by {found['batch']:.0e}, the order by {found['order']:.0e} of the largest logit"
        )
    yield Answer(defence["name"], verdict, "; ".join(said), "defence")


@probed("head")
def output_head(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """The defence answers with logits.

    Probabilities saturate, and margins taken of them vanish. Fails where all rows lie in [0, 1] and sum to 1. Log-
    probabilities pass: margins and ratios of differences are those of the logits.

    Remedy: take the softmax off; attacks want what goes into it.
    """
    kind = "log-probabilities" if found["log_probabilities"] else "logits"
    kind = "probabilities" if found["probabilities"] else kind
    yield Answer(defence["name"], FAIL if found["probabilities"] else PASS, f"answers with {kind}", "classifier")


@probed("head")
def saturated_logits(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """The answers are not so sure that float32 cross-entropy loses its gradient.

    Beyond a lead of 16.6 the label's probability rounds to 1, beyond 80 or so the gradient is 0 and a plain
    cross-entropy attack stands still. Warns where the first is passed on 20 % of images, fails where the second is on
    1 %, unless an attack with another loss took part.

    Remedy: attack=[apgd_margin].
    """
    losses = {cell["options"].get("loss") for cell in record.run["cells"] if defence["name"] in cell["judges"]}
    lost = found["lost"] > 0.01
    verdict = WARN if lost or found["saturated"] > 0.2 else PASS
    if lost and not losses - {None, "cross_entropy"}:
        verdict = FAIL
    said = f"the first logit leads by {found['lead_median']:.1f} (median), by over 16.6 on {found['saturated']:.0%} of "
    said += f"images, by over 80 on {found['lost']:.0%}"
    yield Answer(defence["name"], verdict, said, "classifier")


@probed("gradients")
def zero_gradients(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """The margin has a gradient at every image and at a random point near it.

    An attack that gets zeros does nothing, and nothing looks like robustness. Fails where a margin gradient is
    exactly 0 or none reaches the images; warns where one is shorter than 1e-12 or 5 % of plain cross-entropy
    gradients are 0.

    Remedy: routes that see around it (identity, learned, soft, smoothed) and the query attack.
    """
    suspect = found["tiny"] or found["cross_entropy_zero"] > 0.05
    verdict = FAIL if found["zero"] or not found["reaches_images"] else WARN if suspect else PASS
    said = f"zero on {found['zero']:.0%}, vanishing on {found['tiny']:.0%} of {found['points']} points; "
    said += f"cross-entropy's zero on {found['cross_entropy_zero']:.0%}"
    said = said if found["reaches_images"] else "no gradient reaches the images"
    yield Answer(defence["name"], verdict, said, guilty(record, defence["name"]))


@probed("gradients")
def nan_gradients(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """No logit and no gradient is NaN or infinite.

    A NaN answer is never right, but a NaN gradient stops an attack quietly. At the images, at random points near them
    and at the lightest and darkest corner of the ball, and among all judged answers. Fails on any.

    Remedy: find the layer that divides by zero or overflows.
    """
    rows = sum(int((rows.prediction == -1).sum()) for rows in record.rows if rows.naming["defence"] == defence["name"])
    gradients, logits = found["non_finite_gradients"], found["non_finite_logits"]
    said = f"not finite: {gradients} gradients and {logits} answers of the probe, {rows} judged answers"
    yield Answer(defence["name"], FAIL if gradients + logits + rows else PASS, said, guilty(record, defence["name"]))


@probed("differences")
def finite_differences(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """Autograd says what central differences say.

    A straight-through, rounding or hand-written backward pass is not the derivative. In float64, at a random point of
    the ball, along random directions, the best of three step lengths. Fails where the median is off by over 1 %,
    warns where over 10 % of the pairs are: kinks everywhere, which max-pooling by indices truly has.

    Remedy: the gradient is not the derivative; routes identity, learned, soft or smoothed, and the query attack.
    """
    parts = {part: found[part] for part in ("purifier", "classifier", "whole") if part in found}
    lying = [part for part, value in parts.items() if value["median"] > 1e-2]
    kinked = [part for part, value in parts.items() if value["share_off"] > 0.1]
    said = ", ".join(f"{part} {v['median']:.0e} ({v['share_off']:.0%} over 1 %)" for part, v in parts.items())
    verdict = FAIL if lying else WARN if kinked else PASS
    yield Answer(defence["name"], verdict, f"median relative error: {said}", (lying or kinked or [""])[0])


@probed("jumps")
def jumps(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """The defence changes by what its gradients along the way add up to.

    Whatever is continuous does, kinks or not. Pooling indices that move, rounding and k-winners-take-all jump, and no
    gradient sees a jump: an attack on such a surface goes by a small part of it. At random points of the ball, over a
    quarter of the radius in random directions. Warns where more than 35 % of the change (median) is unaccounted for,
    fails over 60 %.

    Remedy: routes soft (pooling indices), smoothed and learned, many restarts, and the query attack; never the exact
    gradient alone.
    """
    said = ", ".join(
        f"{part} {found[part]['median']:.0%}" for part in ("purifier", "classifier", "whole") if part in found
    )
    verdict = graded(found["whole"]["median"], SOME_JUMPS, ALL_JUMPS)
    part = guilty(record, defence["name"]) if verdict != PASS else ""
    yield Answer(defence["name"], verdict, f"change that no gradient accounts for: {said}", part)


@probed("curvature")
def curvature(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """A step along the gradient's sign raises the margin about as much as the gradient promises.

    Where a quarter of the radius brings a tenth of the promise or less, the surface is jagged or strongly curved, and
    the gradient leads nowhere. Warns under 0.3, fails under a tenth: sound convolutional networks keep 0.5.

    Remedy: routes soft and smoothed; more and smaller steps, restarts.
    """
    if found["quarter"] is None:
        yield Answer(defence["name"], NOT_APPLICABLE, "there is no gradient to follow (zero_gradients)")
        return
    ratio = found["quarter"]
    said = (
        f"real over promised rise {found['one_level']:.2f} at 1/255, {ratio:.2f} at a quarter of the radius (medians)"
    )
    verdict = FAIL if ratio < 0.1 else WARN if ratio < 0.3 else PASS
    yield Answer(defence["name"], verdict, said, guilty(record, defence["name"]))


@probed("ascent")
def ascent(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """Some route's gradient points uphill better than chance does.

    A direction that does not beat random ones is no attack. A step of a quarter of the radius along each route's sign
    against three random ones and the opposite, by the real margin. The best route's share decides: warns under
    90 %, fails under 75 % of images.

    Remedy: routes soft, smoothed, learned; the query attack.
    """
    if not found:
        return
    shares = {route: value["share"] for route, value in sorted(found.items())}
    said = ", ".join(f"{route} {share:.0%}" for route, share in shares.items())
    n = next(iter(found.values()))["images"]
    verdict = graded(1 - max(shares.values()), 0.1, 0.25)
    yield Answer(defence["name"], verdict, f"{said} (n={n})", guilty(record, defence["name"]))


@probed("ascent")
def surrogate_valid(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """Each straight-through route points uphill.

    BPDA with the identity says something only about purifiers near the identity. Of the routes that replace the
    purifier's backward pass, those under 75 % in `ascent` warn: what they leave must not be reported as the white box.

    Remedy: the minimum over all routes counts, never one of these alone.
    """
    through = {route: found[route]["share"] for route in STRAIGHT_THROUGH if route in found}
    if not through:
        return
    moved = (record.probe(defence["name"], "moved") or {}).get("median")
    said = ", ".join(f"{route} {share:.0%}" for route, share in through.items())
    said += f"; the purifier moves an image by {moved:.0%} of its length" if moved is not None else ""
    yield Answer(defence["name"], WARN if min(through.values()) < 0.75 else PASS, said, "attack")


@probed("inner")
def inner_optimisation(record: Record, defence: dict, found: dict) -> Iterator[Answer]:
    """A forward pass is one pass.

    A defence that optimises or iterates inside its forward is not differentiated by a plain backward. Fails where a
    forward takes gradients, warns where a layer with weights runs more than once.

    Remedy: differentiate through the loop, or attack by learned, smoothed and query.
    """
    calls, again = found["autograd_calls"], found["called_again"]
    said = f"{calls} gradient calls in a forward" if calls else "one pass"
    said = f"run more than once: {', '.join(again)}" if again and not calls else said
    yield Answer(defence["name"], FAIL if calls else WARN if again else PASS, said, "defence")


def admission(record: Record) -> Iterator[Answer]:
    """RobustBench would take it: it is deterministic, has gradients and no inner loop.

    What it refuses cannot be compared there. Warns and says which rule is broken; such a defence may be fine.

    Remedy: compare it with others of its kind.
    """
    for defence in record.defences:
        probes = {key: record.probe(defence["name"], key) for key in ("randomness", "gradients", "inner")}
        if any(found is None or "error" in found for found in probes.values()):
            continue
        rules = {
            "answers at random": probes["randomness"]["logits"] > 1e-4,
            "has zero gradients": probes["gradients"]["zero"] > 0,
            "optimises inside": probes["inner"]["autograd_calls"] > 0,
        }
        broken = [rule for rule, holds in rules.items() if holds]
        yield Answer(defence["name"], WARN if broken else PASS, ", ".join(broken) or "admitted", "defence")


def guilty(record: Record, name: str) -> str:
    """The part whose gradient is absent, is not its derivative or misses its jumps; `defence` where none stands out."""
    differences = record.probe(name, "differences") or {}
    jumps = record.probe(name, "jumps") or {}
    for part in ("purifier", "classifier"):
        value = differences.get(part, {})
        lies = value.get("median", 0) > 1e-2 or value.get("share_off", 0) > 0.1 or value.get("flat", 0) > 0
        if lies or jumps.get(part, {}).get("median", 0) > SOME_JUMPS:
            return part
    return "defence"
