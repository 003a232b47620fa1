"""Checks of the routes: the attacker must use those that the defence's gradients call for."""

from collections.abc import Iterator

from s2snet.audit.checks.finding import FAIL, PASS, WARN, Answer
from s2snet.audit.checks.record import Record

OTHER_BACKWARD = ("identity", "learned", "affine", "soft", "smoothed")  # replace a backward pass that is wrong
SMOOTHING = ("soft", "smoothed")
FAR = 0.25  # of an image's norm: a purifier that moves a clean image this far is not close to the identity


def compulsory_routes(record: Record) -> Iterator[Answer]:
    """The routes that the measurements call for were used.

    A zero or wrong gradient calls for a route around it, kinks and a jagged surface for one that smooths them (soft or
    smoothed), a random defence for eot, and a purifier that moves images by over a quarter of their norm for learned or
    soft, since the identity does not approximate it. Fails if none of the routes that one of these calls for was used.
    Without a purifier there is no other route: then a query attack is called for, and its absence warns.

    Remedy: threat.white_box.routes=[exact,identity,soft,learned,affine,smoothed,eot] threat=[gray_box,white_box,query]
    attack=[fgsm,apgd,apgd_margin,square].
    """
    for defence in record.defences:
        name = defence["name"]
        needs = _needed_routes(record, name)
        if needs is None:
            continue
        used = {label[2] for label in record.scores.parts if label[:2] == (name, "white_box")}
        queried = any(label[:2] == (name, "query") for label in record.scores.parts)
        if not defence.get("has_purifier"):
            masked = "a wrong gradient" in needs or "kinks" in needs
            yield Answer(
                name,
                WARN if masked and not queried else PASS,
                f"{', '.join(needs)}; {'a' if queried else 'no'} query attack was run"
                if masked
                else "nothing calls for another route",
                "attack",
            )
            continue
        missing = [f"{reason}: use {' or '.join(routes)}" for reason, routes in needs.items() if not used & set(routes)]
        passed = f"{', '.join(needs)}: covered by {', '.join(sorted(used))}" if needs else "no route is missing"
        yield Answer(name, FAIL if missing else PASS, "; ".join(missing) or passed, "attack")


def _needed_routes(record: Record, name: str) -> dict[str, tuple[str, ...]] | None:
    """Return {reason: routes, one of which must be used}, or None if nothing was measured."""
    probes = {key: record.probe(name, key) for key in ("gradients", "differences", "curvature", "randomness", "moved")}
    if all(measured is None for measured in probes.values()):
        return None
    probes = {key: {} if measured is None or "error" in measured else measured for key, measured in probes.items()}
    parts = [part for part in probes["differences"].values() if isinstance(part, dict)]
    zero = probes["gradients"].get("zero", 0) > 0 or not probes["gradients"].get("reaches_images", True)
    quarter = probes["curvature"].get("quarter")
    needs: dict[str, tuple[str, ...]] = {}
    if zero or any(part["median"] > 1e-2 for part in parts):
        needs["a wrong gradient"] = OTHER_BACKWARD
    if any(part["share_off"] > 0.1 for part in parts) or (quarter is not None and quarter < 0.1):
        needs["kinks"] = SMOOTHING
    if probes["randomness"].get("logits", 0) > 1e-4:
        needs["randomness"] = ("eot",)
    if probes["moved"].get("median", 0) > FAR:
        needs["a purifier far from the identity"] = ("learned", "soft")
    return needs
