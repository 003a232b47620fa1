"""Whether the attacker went the ways that the defence's gradients make compulsory."""

from collections.abc import Iterator

from s2snet.checks.finding import FAIL, PASS, WARN, Answer
from s2snet.checks.record import Record

AROUND = ("identity", "learned", "affine", "soft", "smoothed")  # see around a backward pass that says nothing
OVER_KINKS = ("soft", "smoothed")
FAR = 0.25  # of an image's length: a purifier that moves a clean image so far is not near the identity


def compulsory_routes(record: Record) -> Iterator[Answer]:
    """The routes that see around what was found were taken.

    A gradient that is zero or wrong wants a route around it; kinks and a jagged surface want one that sees over them
    (soft or smoothed); a defence that answers at random wants eot; a purifier that moves images by a quarter of their
    length wants learned or soft, since the identity is no stand-in for it. Fails where none of the routes that one
    of these asks for was taken. Without a purifier there is no way around: then the query attack is asked for, by a
    warning.

    Remedy: threat.white_box.routes=[exact,identity,soft,learned,affine,smoothed,eot] threat=[gray_box,white_box,query]
    attack=[fgsm,apgd,apgd_margin,square].
    """
    for defence in record.defences:
        name = defence["name"]
        needs = _needs(record, name)
        if needs is None:
            continue
        taken = {label[2] for label in record.scores.parts if label[:2] == (name, "white_box")}
        asked = any(label[:2] == (name, "query") for label in record.scores.parts)
        if not defence.get("has_purifier"):
            masked = "a wrong gradient" in needs or "kinks" in needs
            yield Answer(
                name,
                WARN if masked and not asked else PASS,
                f"{_listed(needs)}; {'the query attack was' if asked else 'no query attack was'} made"
                if masked
                else "nothing asks for another route",
                "attack",
            )
            continue
        missing = [f"{why} wants {' or '.join(routes)}" for why, routes in needs.items() if not taken & set(routes)]
        fine = f"{_listed(needs)}: seen around by {', '.join(sorted(taken))}" if needs else "nothing asks for more"
        yield Answer(name, FAIL if missing else PASS, "; ".join(missing) or fine, "attack")


def _needs(record: Record, name: str) -> dict[str, tuple[str, ...]] | None:
    """{what was found: routes of which one must be taken}; None where nothing was probed."""
    probes = {key: record.probe(name, key) for key in ("gradients", "differences", "curvature", "randomness", "moved")}
    if all(found is None for found in probes.values()):
        return None
    probes = {key: {} if found is None or "error" in found else found for key, found in probes.items()}
    parts = [part for part in probes["differences"].values() if isinstance(part, dict)]
    wrong = probes["gradients"].get("zero", 0) > 0 or not probes["gradients"].get("reaches_images", True)
    quarter = probes["curvature"].get("quarter")
    needs: dict[str, tuple[str, ...]] = {}
    if wrong or any(part["median"] > 1e-2 for part in parts):
        needs["a wrong gradient"] = AROUND
    if any(part["share_off"] > 0.1 for part in parts) or (quarter is not None and quarter < 0.1):
        needs["kinks"] = OVER_KINKS
    if probes["randomness"].get("logits", 0) > 1e-4:
        needs["randomness"] = ("eot",)
    if probes["moved"].get("median", 0) > FAR:
        needs["a purifier far from the identity"] = ("learned", "soft")
    return needs


def _listed(needs: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(needs)
