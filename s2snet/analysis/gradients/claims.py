"""The claims of study=gradients, from its tables alone, and the rules that decide them."""

from typing import Any

from s2snet.analysis.claim import FAILS, HOLDS, Claim, above, all_of, below, exceeds
from s2snet.analysis.intervals import Estimate

PAPER = "arXiv 1803.07994, abstract; the measure is ours"
NEGLIGIBLE = 0.05  # a share, or a difference of shares, that explains nothing
SAME = 0.95  # a cosine of one gradient computed in two precisions
ELSEWHERE = 0.5  # a cosine: an angle of more than 60 degrees
UNKNOWN = (
    "the paper's measure is not known, and its images (ImageNet) and networks are others. Where a loss at the label is "
    "differentiated, the gradient depends on the label by definition."
)
Tables = dict[str, list[dict[str, Any]]]


def all_claims(tables: Tables) -> list[Claim]:
    """Return all claims; those about index maps if there are tables about them."""
    estimates = Estimates(tables)
    objectives = list(dict.fromkeys(row["objective"] for row in tables["measures"]))
    claims = [*_parts(estimates, "loss_at_label")]
    claims += [_whole(estimates, objective, "s2snet") for objective in objectives]
    claims += [_nothing_left(estimates, objective) for objective in ("loss_at_label", "fixed_logit")]
    claims += [_tuning(estimates, objective) for objective in ("loss_at_label", "fixed_logit")]
    if "unpool_indices" in estimates.networks:
        claims += [_whole(estimates, objective, "unpool_indices") for objective in ("loss_at_label", "fixed_logit")]
    if "bits" in tables:
        claims += [*_capacity(tables), _donor(tables), _indices_alone(tables)]
    if {"nearest", "indices"} <= {row["unpool"] for row in tables.get("unpooling", [])}:
        claims.append(_reconstruction(tables))
    return claims


class Estimates:
    """The rows of `measures` and `changes`, looked up by objective, network and measure."""

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

    def compared(self, objective: str, network: str, measure: str, share: bool = False) -> str:
        """Return `0.31 (...) behind it, 0.62 (...) of the bare classifier; change -0.31 (...)`, shares in percent."""
        text, change = (Estimate.percent, Estimate.points) if share else (Estimate.text, Estimate.text)
        here, bare = self.value(objective, network, measure), self.value(objective, "none", measure)
        difference = change(self.change(objective, network, measure))
        return f"{text(here)} behind it, {text(bare)} of the bare classifier; change {difference}"


def _estimate(row: dict[str, Any]) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"], row["n"])


def cosine_falls(estimates: Estimates, objective: str, network: str) -> str:
    return below(estimates.change(objective, network, "class_gap"))


def probe_falls(estimates: Estimates, objective: str, network: str) -> str:
    return below(estimates.change(objective, network, "probe"))


def edges_rise(estimates: Estimates, objective: str, network: str) -> str:
    """Return whether the correlation with the image's own edges rises, and by more than that with another image's.

    Any two centred pictures correlate.
    """
    changes = (estimates.change(objective, network, measure) for measure in ("edges", "edges_above_stranger"))
    return all_of(*map(above, changes))


def norms_explain_nothing(estimates: Estimates, objective: str, network: str) -> str:
    """Return whether few images have no gradient, there are no more zeros, and float32 agrees with float64."""
    return all_of(
        *(below(estimates.value(objective, name, "all_zero"), NEGLIGIBLE) for name in ("none", network)),
        below(estimates.change(objective, network, "zeros"), NEGLIGIBLE),
        above(estimates.value(objective, network, "float64"), SAME),
    )


def _because(verdict: str) -> str:
    return "" if verdict == HOLDS else UNKNOWN


def _parts(estimates: Estimates, objective: str) -> list[Claim]:
    """Return a claim for each part of the rule for the S2SNet, and for the measures that are not part of it."""
    network = "s2snet"

    def compared(measure: str, share: bool = False) -> str:
        return estimates.compared(objective, network, measure, share)

    def value(measure: str) -> Estimate:
        return estimates.value(objective, network, measure)

    cosine, probe = cosine_falls(estimates, objective, network), probe_falls(estimates, objective, network)
    shift = below(value("agreement"), ELSEWHERE)
    frequency = above(estimates.change(objective, network, "mean_frequency"))
    edges, norms = edges_rise(estimates, objective, network), norms_explain_nothing(estimates, objective, network)
    at = "(gradient of the loss at the true label)"
    return [
        Claim(
            "class_cosine",
            "(1) Behind an S2SNet, gradients of one class are less alike than before, compared with other classes "
            f"{at}.",
            PAPER,
            f"Mean cosine within a class minus that across classes: {compared('class_gap')}.",
            cosine,
            _because(cosine),
        ),
        Claim(
            "probe",
            f"(2) Behind an S2SNet, a linear probe predicts the class from the gradient less often {at}.",
            PAPER,
            f"{compared('probe', share=True)}. With shuffled labels {value('probe_shuffled').percent()}; without "
            f"down-sampling {value('probe_whole').percent()}, bare "
            f"{estimates.value(objective, 'none', 'probe_whole').percent()}.",
            probe,
            _because(probe),
        ),
        Claim(
            "agreement",
            "(3) The gradient changes direction: behind an S2SNet it is more than 60 degrees from the classifier's "
            "own.",
            PAPER,
            f"Mean cosine {value('agreement').text()}; of the autoencoder "
            f"{estimates.value(objective, 'autoencoder', 'agreement').text()}. Controls: with another image's gradient "
            f"{value('agreement_stranger').text()}, with a random direction {value('agreement_random').text()}.",
            shift,
            _because(shift),
        ),
        Claim(
            "spectrum",
            "(4) Behind an S2SNet, the gradient has higher frequencies.",
            "ours: a reading of `low-level structure`, arXiv 1803.07994",
            f"Mean frequency in cycles per pixel {compared('mean_frequency')}.",
            frequency,
        ),
        Claim(
            "edges",
            "(5) Behind an S2SNet, |gradient| follows the image's edges more than before, and its own edges more than "
            "another image's.",
            PAPER,
            f"Rank correlation with Sobel {compared('edges')}. With another image's edges "
            f"{value('edges_stranger').text()}, bare {estimates.value(objective, 'none', 'edges_stranger').text()}; "
            f"own minus other's: change {estimates.change(objective, network, 'edges_above_stranger').text()}.",
            edges,
            _because(edges),
        ),
        Claim(
            "norms",
            "(6) Vanished gradients are not the explanation: no image without a gradient, no more exact zeros, and "
            "float32 gives the same direction as float64.",
            "ours",
            f"Images with a gradient of zeros {value('all_zero').percent()}; exact zeros "
            f"{compared('zeros', share=True)}; cosine with float64 {value('float64').text()}. log10 of the L2 norm "
            f"{compared('log10_norm')}.",
            norms,
        ),
    ]


OF = {
    "loss_at_label": "the loss at the true label, as attackers take it; it carries the label through the loss itself",
    "loss_at_prediction": "the loss at the network's own prediction, which is the label if it is correct",
    "top_logit": "the highest logit, whose class is the label if the prediction is correct",
    "fixed_logit": "the logit of one class for all images, which carries no label",
}
NAMES = {"s2snet": "an S2SNet", "unpool_indices": "an S2SNet that unpools by index maps, as the authors' does,"}


def _whole(estimates: Estimates, objective: str, network: str) -> Claim:
    rules = {
        "(1) class cosine falls": cosine_falls,
        "(2) probe falls": probe_falls,
        "(5) edges rise": edges_rise,
        "(6) norms are not the explanation": norms_explain_nothing,
    }
    verdicts = {part: rule(estimates, objective, network) for part, rule in rules.items()}
    numbers = (
        f"class cosine {estimates.change(objective, network, 'class_gap').text()}, probe "
        f"{estimates.change(objective, network, 'probe').points()}, edges "
        f"{estimates.change(objective, network, 'edges').text()}"
    )
    verdict = all_of(*verdicts.values())
    return Claim(
        f"stripped_{objective}" + ("" if network == "s2snet" else f"_{network}"),
        f"Gradients behind {NAMES[network]} are stripped of class-dependent signal: (1) and (2) fall, (5) rises, (6) "
        f"is not the explanation. The quantity differentiated is {OF[objective]}.",
        PAPER,
        "; ".join(f"{part}: {verdict}" for part, verdict in verdicts.items()) + f". Changes: {numbers}.",
        verdict,
        _because(verdict),
    )


def _nothing_left(estimates: Estimates, objective: str) -> Claim:
    left = estimates.value(objective, "s2snet", "probe_above_shuffled")
    verdict = below(left, NEGLIGIBLE)
    return Claim(
        f"nothing_left_{objective}",
        f"Taken literally: no class signal is left, the probe is at most {100 * NEGLIGIBLE:.0f} points better than "
        f"with shuffled labels. The quantity differentiated is {OF[objective]}.",
        PAPER,
        f"{estimates.value(objective, 's2snet', 'probe').percent()}, with shuffled labels "
        f"{estimates.value(objective, 's2snet', 'probe_shuffled').percent()}; {left.points()} better.",
        verdict,
        _because(verdict),
    )


def _tuning(estimates: Estimates, objective: str) -> Claim:
    """Return the claim that stage 2 puts class signal back: the S2SNet against the autoencoder before tuning."""
    gap, probe = (estimates.change(objective, "s2snet", measure, "autoencoder") for measure in ("class_gap", "probe"))
    return Claim(
        f"tuning_{objective}",
        "The tuned decoder puts class signal back: (1) and (2) are higher behind the S2SNet than behind the "
        f"autoencoder before tuning. The quantity differentiated is {OF[objective]}.",
        "ours",
        f"Class cosine {gap.text()}, probe {probe.points()}.",
        all_of(above(gap), above(probe)),
    )


def _capacity(tables: Tables) -> list[Claim]:
    rows = {row["what"]: row for row in tables["bits"]}
    indices, image = rows["all indices"], rows["image, 8 bits a value"]
    authors = {what: rows[f"authors' SegNet at 224 x 224: {what}"]["bits"] for what in ("index", "image")}
    return [
        Claim(
            "capacity",
            "By construction the bottleneck is no limit: the index maps can hold more bits than the image.",
            "ours, from the authors' released architecture",
            f"{indices['choices']} choices of two bits are {indices['bits']} bits, against {image['bits']} of the "
            f"image at 8 bits a value. The authors' SegNet at 224 x 224: {authors['index'] / 1e6:.2f} against "
            f"{authors['image'] / 1e6:.2f} Mbit.",
            HOLDS if indices["bits"] > image["bits"] else FAILS,
        ),
        Claim(
            "index_entropy",
            "That capacity is used: the measured entropies of the choices sum to more bits than the image has.",
            "ours",
            f"{indices['entropy_bits']:.0f} bits, {indices['entropy_each']:.2f} of 2 for each choice (n = "
            f"{indices['n']} images), against {image['bits']}. Choices depend on each other: together they carry less.",
            HOLDS if indices["entropy_bits"] > image["bits"] else FAILS,
        ),
    ]


def _predicted(tables: Tables, indices: str, says: str) -> Estimate:
    """Return how often the classifier predicts the label of the code, or the donor's, with indices of that kind."""
    (row,) = (
        row for row in tables["exchanges"] if (row["network"], row["indices"], row["says"]) == ("s2snet", indices, says)
    )
    return _estimate(row)


def _donor(tables: Tables) -> Claim:
    code, donor = (_predicted(tables, "other", says) for says in ("code", "donor"))
    own, random, constant = (_predicted(tables, indices, "code") for indices in ("own", "random", "constant"))
    return Claim(
        "donor",
        "The index maps carry the class: given one image's code and the indices of an image of another class, the "
        "classifier predicts the class of the indices more often than that of the code.",
        "ours",
        f"The indices' class {donor.percent()}, the code's {code.percent()}. The code's with its own indices "
        f"{own.percent()}, with random ones {random.percent()}, with constant ones {constant.percent()}.",
        exceeds(donor, code),
    )


def _indices_alone(tables: Tables) -> Claim:
    indices, code = _predicted(tables, "mean code", "code"), _predicted(tables, "constant", "code")
    return Claim(
        "indices_alone",
        "The index maps alone identify the class better than the code alone.",
        "ours",
        f"Own indices with the mean code of all images {indices.percent()}; own code with constant indices "
        f"{code.percent()}.",
        exceeds(indices, code),
    )


def _reconstruction(tables: Tables) -> Claim:
    rows = {(r["unpool"], r["network"], r["measure"]): _estimate(r) for r in tables["unpooling"]}
    errors = {unpool: rows[unpool, "autoencoder", "squared_error"] for unpool in ("indices", "nearest")}
    kinds = dict.fromkeys(unpool for unpool, *_ in rows)
    accuracies = ", ".join(f"{unpool} {rows[unpool, 's2snet', 'accuracy'].percent()}" for unpool in kinds)
    every = ", ".join(f"{unpool} {rows[unpool, 'autoencoder', 'squared_error'].text()}" for unpool in kinds)
    return Claim(
        "unpooling",
        "Index maps carry detail past the bottleneck: after equal training the autoencoder reconstructs images better "
        "with them than without.",
        "ours",
        f"Squared error per pixel of the autoencoder: {every}. Clean accuracy behind the S2SNet: {accuracies}.",
        exceeds(errors["nearest"], errors["indices"]),
    )
