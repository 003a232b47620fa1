"""The claims of study=gradients, from its tables alone: what each says, the rule that decides it, what was found."""

from typing import Any

from s2snet.analysis.bench import FAILS, HOLDS, Claim
from s2snet.analysis.intervals import Estimate
from s2snet.analysis.rules import above, all_of, apart, below

PAPER = "arXiv 1803.07994, abstract; the measure is ours"
NEGLIGIBLE = 0.05  # a share, or a difference of shares, that explains nothing
SAME = 0.95  # a cosine of one gradient computed in two precisions
ELSEWHERE = 0.5  # a cosine: more than 60 degrees apart
UNKNOWN = (
    "the paper's measure is not known, and its images (ImageNet) and networks are others. Where a loss at the label is "
    "differentiated, the gradient depends on the label by definition."
)
Tables = dict[str, list[dict[str, Any]]]


def claims(tables: Tables) -> list[Claim]:
    """All claims; those of the index maps where they were looked at."""
    found = Found(tables)
    objectives = list(dict.fromkeys(row["objective"] for row in tables["measures"]))
    said = [*_parts(found, "loss_at_label"), *(_whole(found, objective, "s2snet") for objective in objectives)]
    said += [_nothing_left(found, objective) for objective in ("loss_at_label", "fixed_logit")]
    said += [_tuning(found, objective) for objective in ("loss_at_label", "fixed_logit")]
    if "unpool_indices" in found.networks:
        said += [_whole(found, objective, "unpool_indices") for objective in ("loss_at_label", "fixed_logit")]
    if "bits" in tables:
        said += [*_capacity(tables), _donor(tables), _indices_alone(tables)]
    if {"nearest", "indices"} <= {row["unpool"] for row in tables.get("unpooling", [])}:
        said.append(_reconstruction(tables))
    return said


class Found:
    """The rows of `measures` and `changes` as estimates."""

    def __init__(self, tables: Tables):
        self._values = {(r["objective"], r["network"], r["measure"]): _estimate(r) for r in tables["measures"]}
        self._changes = {
            (r["objective"], r["network"], r["since"], r["measure"]): _estimate(r) for r in tables["changes"]
        }
        self.networks = {row["network"] for row in tables["measures"]}

    def value(self, objective: str, network: str, measure: str) -> Estimate:
        return self._values[objective, network, measure]

    def change(self, objective: str, network: str, measure: str, since: str = "none") -> Estimate:
        return self._changes[objective, network, since, measure]

    def told(self, objective: str, network: str, measure: str, share: bool = False) -> str:
        """`0.31 (...) behind it, 0.62 (...) of the bare classifier; change -0.31 (...)`; a `share` in percent."""
        text, change = (Estimate.percent, Estimate.points) if share else (Estimate.text, Estimate.text)
        here, bare = self.value(objective, network, measure), self.value(objective, "none", measure)
        changed = change(self.change(objective, network, measure))
        return f"{text(here)} behind it, {text(bare)} of the bare classifier; change {changed}"


def _estimate(row: dict[str, Any]) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"], row["n"])


def cosine_falls(found: Found, objective: str, network: str) -> str:
    return below(found.change(objective, network, "class_gap"))


def probe_falls(found: Found, objective: str, network: str) -> str:
    return below(found.change(objective, network, "probe"))


def edges_rise(found: Found, objective: str, network: str) -> str:
    """With the image's own edges, and by more than with another image's: any centred picture correlates with others."""
    changes = (found.change(objective, network, measure) for measure in ("edges", "edges_above_stranger"))
    return all_of(*map(above, changes))


def norms_explain_nothing(found: Found, objective: str, network: str) -> str:
    """Hardly an image without a gradient, no more zeros than before, and float32 has the direction of float64."""
    return all_of(
        *(below(found.value(objective, name, "all_zero"), NEGLIGIBLE) for name in ("none", network)),
        below(found.change(objective, network, "zeros"), NEGLIGIBLE),
        above(found.value(objective, network, "float64"), SAME),
    )


def _because(verdict: str) -> str:
    return "" if verdict == HOLDS else UNKNOWN


def _parts(found: Found, objective: str) -> list[Claim]:
    """Each part of the rule for the S2SNet, and the measures that are not part of it."""
    network = "s2snet"

    def told(measure: str, share: bool = False) -> str:
        return found.told(objective, network, measure, share)

    def value(measure: str) -> Estimate:
        return found.value(objective, network, measure)

    cosine, probe = cosine_falls(found, objective, network), probe_falls(found, objective, network)
    shift = below(value("agreement"), ELSEWHERE)
    frequency = above(found.change(objective, network, "mean_frequency"))
    edges, norms = edges_rise(found, objective, network), norms_explain_nothing(found, objective, network)
    at = "(gradient of the loss at the true label)"
    return [
        Claim(
            "class_cosine",
            "(1) Behind an S2SNet, gradients of one class are less alike than before, compared with other classes "
            f"{at}.",
            PAPER,
            f"Mean cosine within a class less that across classes: {told('class_gap')}.",
            cosine,
            _because(cosine),
        ),
        Claim(
            "probe",
            f"(2) Behind an S2SNet, a linear probe names the class from the gradient less often {at}.",
            PAPER,
            f"{told('probe', share=True)}. With shuffled labels {value('probe_shuffled').percent()}; without "
            f"down-sampling {value('probe_whole').percent()}, bare "
            f"{found.value(objective, 'none', 'probe_whole').percent()}.",
            probe,
            _because(probe),
        ),
        Claim(
            "agreement",
            "(3) The gradient shifts: behind an S2SNet it is more than 60 degrees from the classifier's own.",
            PAPER,
            f"Mean cosine {value('agreement').text()}; of the autoencoder "
            f"{found.value(objective, 'autoencoder', 'agreement').text()}. Controls: with another image's gradient "
            f"{value('agreement_stranger').text()}, with a random direction {value('agreement_random').text()}.",
            shift,
            _because(shift),
        ),
        Claim(
            "spectrum",
            "(4) Behind an S2SNet, the gradient's power lies at higher frequencies.",
            "ours: a reading of `low-level structure`, arXiv 1803.07994",
            f"Mean frequency in cycles per pixel {told('mean_frequency')}.",
            frequency,
        ),
        Claim(
            "edges",
            "(5) Behind an S2SNet, |gradient| follows the image's edges more than before, and its own edges more than "
            "another image's.",
            PAPER,
            f"Rank correlation with Sobel {told('edges')}. With another image's edges "
            f"{value('edges_stranger').text()}, bare {found.value(objective, 'none', 'edges_stranger').text()}; own "
            f"less other's: change {found.change(objective, network, 'edges_above_stranger').text()}.",
            edges,
            _because(edges),
        ),
        Claim(
            "norms",
            "(6) Vanished gradients are not the explanation: no image without a gradient, no more exact zeros, and "
            "float32 finds the direction that float64 finds.",
            "ours",
            f"Images with a gradient of zeros {value('all_zero').percent()}; exact zeros "
            f"{told('zeros', share=True)}; cosine with float64 {value('float64').text()}. log10 of the L2 norm "
            f"{told('log10_norm')}.",
            norms,
        ),
    ]


OF = {
    "loss_at_label": "the loss at the true label, as attackers take it; it carries the label through the loss itself",
    "loss_at_prediction": "the loss at the network's own prediction, which is the label wherever that is right",
    "top_logit": "the highest logit, whose class is the label wherever the prediction is right",
    "fixed_logit": "the logit of one class for all images, which carries no label",
}
NAMES = {"s2snet": "an S2SNet", "unpool_indices": "an S2SNet that unpools by index maps, as the authors' does,"}


def _whole(found: Found, objective: str, network: str) -> Claim:
    rules = {
        "(1) class cosine falls": cosine_falls,
        "(2) probe falls": probe_falls,
        "(5) edges rise": edges_rise,
        "(6) norms are not the explanation": norms_explain_nothing,
    }
    verdicts = {part: rule(found, objective, network) for part, rule in rules.items()}
    numbers = (
        f"class cosine {found.change(objective, network, 'class_gap').text()}, probe "
        f"{found.change(objective, network, 'probe').points()}, edges "
        f"{found.change(objective, network, 'edges').text()}"
    )
    verdict = all_of(*verdicts.values())
    return Claim(
        f"stripped_{objective}" + ("" if network == "s2snet" else f"_{network}"),
        f"Gradients behind {NAMES[network]} are stripped of class-dependent signal: (1) and (2) fall, (5) rises, (6) "
        f"is not the explanation. Differentiated is {OF[objective]}.",
        PAPER,
        "; ".join(f"{part}: {verdict}" for part, verdict in verdicts.items()) + f". Changes: {numbers}.",
        verdict,
        _because(verdict),
    )


def _nothing_left(found: Found, objective: str) -> Claim:
    left = found.value(objective, "s2snet", "probe_above_shuffled")
    verdict = below(left, NEGLIGIBLE)
    return Claim(
        f"nothing_left_{objective}",
        f"Taken literally: no class signal is left, the probe is at most {100 * NEGLIGIBLE:.0f} points better than "
        f"with shuffled labels. Differentiated is {OF[objective]}.",
        PAPER,
        f"{found.value(objective, 's2snet', 'probe').percent()}, with shuffled labels "
        f"{found.value(objective, 's2snet', 'probe_shuffled').percent()}; {left.points()} better.",
        verdict,
        _because(verdict),
    )


def _tuning(found: Found, objective: str) -> Claim:
    """Which of the two stages does it: the S2SNet beside the autoencoder that it was tuned from."""
    gap, probe = (found.change(objective, "s2snet", measure, "autoencoder") for measure in ("class_gap", "probe"))
    return Claim(
        f"tuning_{objective}",
        "The tuned decoder puts class signal back: (1) and (2) are higher behind the S2SNet than behind the "
        f"autoencoder before tuning. Differentiated is {OF[objective]}.",
        "ours",
        f"Class cosine {gap.text()}, probe {probe.points()}.",
        all_of(above(gap), above(probe)),
    )


# ------------------------------------------------------------------ index maps


def _capacity(tables: Tables) -> list[Claim]:
    rows = {row["what"]: row for row in tables["bits"]}
    indices, image = rows["all indices"], rows["image, 8 bits a value"]
    authors = {what: rows[f"authors' SegNet at 224 x 224: {what}"]["bits"] for what in ("index", "image")}
    return [
        Claim(
            "capacity",
            "The bottleneck limits nothing by construction: the index maps have room for more bits than the image.",
            "ours, from the authors' released architecture",
            f"{indices['choices']} choices of two bits are {indices['bits']} bits, beside {image['bits']} of the image "
            f"at 8 bits a value. The authors' SegNet at 224 x 224: {authors['index'] / 1e6:.2f} beside "
            f"{authors['image'] / 1e6:.2f} Mbit.",
            HOLDS if indices["bits"] > image["bits"] else FAILS,
        ),
        Claim(
            "index_entropy",
            "That room is used: the entropies of the choices, as measured, add up to more bits than the image has.",
            "ours",
            f"{indices['entropy_bits']:.0f} bits, {indices['entropy_each']:.2f} of 2 for each choice (n = "
            f"{indices['n']} images), beside {image['bits']}. Choices depend on each other: together they carry less.",
            HOLDS if indices["entropy_bits"] > image["bits"] else FAILS,
        ),
    ]


def _said(tables: Tables, indices: str, says: str) -> Estimate:
    (row,) = (
        row for row in tables["exchanges"] if (row["network"], row["indices"], row["says"]) == ("s2snet", indices, says)
    )
    return _estimate(row)


def _donor(tables: Tables) -> Claim:
    code, donor = (_said(tables, "other", says) for says in ("code", "donor"))
    return Claim(
        "donor",
        "The class travels in the index maps: given one image's code and the indices of an image of another class, the "
        "classifier names the class of the indices more often than that of the code.",
        "ours",
        f"The indices' class {donor.percent()}, the code's {code.percent()}. The code's with its own indices "
        f"{_said(tables, 'own', 'code').percent()}, with random ones {_said(tables, 'random', 'code').percent()}, with "
        f"constant ones {_said(tables, 'constant', 'code').percent()}.",
        apart(donor, code),
    )


def _indices_alone(tables: Tables) -> Claim:
    indices, code = _said(tables, "mean code", "code"), _said(tables, "constant", "code")
    return Claim(
        "indices_alone",
        "The index maps alone tell the class better than the code alone.",
        "ours",
        f"Own indices with the mean code of all images {indices.percent()}; own code with constant indices "
        f"{code.percent()}.",
        apart(indices, code),
    )


def _reconstruction(tables: Tables) -> Claim:
    rows = {(r["unpool"], r["network"], r["measure"]): _estimate(r) for r in tables["unpooling"]}
    errors = {unpool: rows[unpool, "autoencoder", "squared_error"] for unpool in ("indices", "nearest")}
    kinds = dict.fromkeys(unpool for unpool, *_ in rows)
    accuracies = ", ".join(f"{unpool} {rows[unpool, 's2snet', 'accuracy'].percent()}" for unpool in kinds)
    every = ", ".join(f"{unpool} {rows[unpool, 'autoencoder', 'squared_error'].text()}" for unpool in kinds)
    return Claim(
        "unpooling",
        "Index maps carry detail past the bottleneck: after equal training the autoencoder restores images better with "
        "them than without.",
        "ours",
        f"Squared error a pixel of the autoencoder: {every}. Clean accuracy behind the S2SNet: {accuracies}.",
        apart(errors["nearest"], errors["indices"]),
    )
