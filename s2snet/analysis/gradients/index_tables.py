"""The tables of study=gradients about index maps: bits, what unpooling them is worth, and exchanged ones."""

from typing import Any

from torch import Tensor, nn

from s2snet.analysis import batched
from s2snet.analysis.bench import Bench, Sample
from s2snet.analysis.gradients import indices as gradients_indices
from s2snet.analysis.gradients import measures
from s2snet.analysis.gradients.tables import columns, interval, resampled_measure
from s2snet.analysis.intervals import RESAMPLES, share
from s2snet.models import Defended

# By unpooling: the autoencoder after stage 1, the S2SNet after stage 2.
Trained = dict[str, tuple[nn.Module, nn.Module]]


def index_maps(bench: Bench, base: Defended, trained: Trained, sample: Sample, donors: Tensor) -> None:
    """The tables unpooling, bits and exchanges; none where nothing was trained."""
    images, labels = sample.images, sample.labels
    for unpool, stages in trained.items():
        for name, purifier in zip(("autoencoder", "s2snet"), stages, strict=True):
            here = {"unpool": unpool, "network": name}
            facts = {"purifier": purifier, "classifier": base.classifier, "images": images, "labels": labels}

            def compare(purifier=purifier, here=here) -> list[dict[str, Any]]:
                restored = batched.logits(purifier, images)
                right = batched.logits(base.classifier, restored).argmax(dim=1) == labels
                error = ((restored - images) ** 2).flatten(1).mean(dim=1).double().cpu()
                counts = measures.resamples(len(labels), RESAMPLES, bench.seed)
                squared = interval(*resampled_measure({"error": error}, "error", counts))
                return [
                    {**here, "measure": "accuracy", **columns(share(int(right.sum()), len(right)))},
                    {**here, "measure": "squared_error", **columns(squared)},
                ]

            bench.rows("unpooling", compare, **here, **facts)
    if "indices" not in trained:
        return
    tuned = trained["indices"][1]
    bench.rows("bits", lambda: _bits(tuned, images), purifier=tuned, images=images)
    for name, purifier in zip(("autoencoder", "s2snet"), trained["indices"], strict=True):
        for kind in gradients_indices.EXCHANGES:
            bench.rows(
                "exchanges",
                lambda name=name, purifier=purifier, kind=kind: _exchange(
                    name, purifier, kind, base, sample, donors, bench.seed
                ),
                purifier=purifier,
                classifier=base.classifier,
                images=images,
                donors=donors,
                options=[kind, bench.seed],
            )


def _bits(purifier: nn.Module, images: Tensor) -> list[dict[str, Any]]:
    """A row for each pooling: its choices, the nominal two bits of each, and the entropy measured over the images.

    Then the image and the code, and, for comparison, the authors' SegNet at 224 pixels by arithmetic.
    """
    config = purifier.config
    size, channels = tuple(images.shape[2:]), images.shape[1]
    rows = []
    entropies = map(gradients_indices.entropy, gradients_indices.counted(purifier, images))
    for stage, entropy in zip(gradients_indices.capacity(size, config["widths"]), entropies, strict=True):
        rows.append(
            {"what": f"indices of pooling {stage['stage']}", **stage, "bits": 2 * stage["choices"]}
            | {"entropy_bits": float(entropy.sum()), "entropy_each": float(entropy.mean()), "n": len(images)}
        )
    known = gradients_indices.totals(size, channels, config["widths"])
    measured = sum(row["entropy_bits"] for row in rows)
    each = measured / known["choices"]
    rows.append(
        {"what": "all indices", "choices": known["choices"], "bits": known["index_bits"]}
        | {"entropy_bits": measured, "entropy_each": each, "n": len(images)}
    )
    rows.append({"what": "image, 8 bits a value", "bits": known["image_bits"]})
    rows.append({"what": "code, 32 bits a value", "bits": known["code_bits"]})
    authors = gradients_indices.totals((224, 224), 3, (64, 128, 256, 512, 512))
    for what in ("index", "image", "code"):
        rows.append({"what": f"authors' SegNet at 224 x 224: {what}", "bits": authors[f"{what}_bits"]})
    return rows


def _exchange(
    name: str, purifier: nn.Module, kind: str, base: Defended, sample: Sample, donors: Tensor, seed: int
) -> list[dict[str, Any]]:
    """What the classifier says of each image's code with indices of that kind: its label, the donor's, another."""
    images, labels = sample.images, sample.labels
    made = gradients_indices.exchanged(purifier, images, images[donors], kind, seed)
    said = batched.logits(base.classifier, made).argmax(dim=1)
    agrees = {"code": said == labels, "donor": said == labels[donors]}
    agrees["neither"] = ~(agrees["code"] | agrees["donor"])
    return [
        {"network": name, "indices": kind, "says": what, **columns(share(int(those.sum()), len(those)))}
        for what, those in agrees.items()
    ]
