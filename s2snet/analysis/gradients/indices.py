"""What a SegNet's index maps carry past its bottleneck: bits, entropy, and what comes out when they are exchanged.

Each 2x2 pooling leaves, beside its values, which of four places each came from; unpooling by these indices puts the
values back there. Sizes and counts follow from the authors' release (arXiv 1803.07994, 1803.08337); the exchanges are
ours.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from s2snet.analysis.batched import BATCH
from s2snet.models import SegNet

BITS = 32  # of a float in the bottleneck
EXCHANGES = ("own", "other", "random", "constant", "mean code")


def capacity(size: tuple[int, int], widths: Sequence[int]) -> list[dict[str, int]]:
    """What each pooling of a SegNet with these widths leaves of an image: values of the code, index choices, bits.

    One row a stage, from the image on; `choices` are of four places, so two bits each.
    """
    rows = []
    height, width = size
    for stage, depth in enumerate(widths, start=1):
        height, width = height // 2, width // 2
        choices = depth * height * width
        rows.append({"stage": stage, "channels": depth, "height": height, "width": width, "choices": choices})
    return rows


def totals(size: tuple[int, int], channels: int, widths: Sequence[int]) -> dict[str, int]:
    """Bits of the 8-bit image, of the code as floats and of the index maps."""
    stages = capacity(size, widths)
    return {
        "image_bits": 8 * channels * size[0] * size[1],
        "code_values": stages[-1]["choices"],
        "code_bits": BITS * stages[-1]["choices"],
        "choices": sum(stage["choices"] for stage in stages),
        "index_bits": 2 * sum(stage["choices"] for stage in stages),
    }


def chosen(indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Which of its window's four places each flat index names: 0, 1 above, 2, 3 below; like indices."""
    row, column = indices // size[1], indices % size[1]
    return 2 * (row % 2) + column % 2


def placed(choices: Tensor, size: tuple[int, int]) -> Tensor:
    """The flat indices, into maps of `size`, of choices [..., h, w] among the four places of each window."""
    rows = 2 * torch.arange(choices.shape[-2], device=choices.device)[:, None] + choices // 2
    columns = 2 * torch.arange(choices.shape[-1], device=choices.device) + choices % 2
    return rows * size[1] + columns


def counted(purifier: SegNet, images: Tensor, batch: int = BATCH) -> list[Tensor]:
    """How often each choice was made over the images: int64 [4, C, h, w] for each pooling. One encoding an image."""
    counts: list[Tensor] = []
    for part in images.split(batch):
        with torch.no_grad():
            code = purifier.encode(part)
        for stage, (indices, size) in enumerate(zip(code.indices, code.sizes, strict=True)):
            made = chosen(indices, size)
            count = torch.stack([(made == choice).sum(dim=0) for choice in range(4)])
            if stage == len(counts):
                counts.append(count)
            else:
                counts[stage] += count
    return counts


def entropy(counts: Tensor) -> Tensor:
    """The entropy in bits of each choice from how often it fell on each of four places, [4, ...] -> [...].

    Of the counts' shares, with Miller and Madow's correction for small n, (outcomes seen - 1) / (2 n ln 2), which takes
    one that is nearly uniform a little beyond 2 as often as below. Choices depend on each other, so a sum over them
    bounds what they carry together from above.
    """
    n, ln2 = counts.sum(dim=0), math.log(2)
    shares = counts.double() / n
    return (((counts > 0).sum(dim=0) - 1) / (2 * n) - torch.special.xlogy(shares, shares).sum(dim=0)) / ln2


def mean_code(purifier: SegNet, images: Tensor, batch: int = BATCH) -> Tensor:
    """The bottleneck averaged over the images, [1, C, h, w]."""
    with torch.no_grad():
        total = sum(purifier.encode(part).bottleneck.double().sum(dim=0) for part in images.split(batch))
    return (total / len(images)).float()[None]


def exchanged(purifier: SegNet, images: Tensor, donors: Tensor, kind: str, seed: int = 0, batch: int = BATCH) -> Tensor:
    """What the decoder makes of the code of `images` with other indices, like images; `kind` is one of EXCHANGES.

    own: as always; other: those of `donors`, like images; random: each window's place drawn at random; constant: the
    first place of each; mean code: its own indices, and the bottleneck averaged over all images, so that the indices
    alone tell one image from another. One or two encodings and one decoding each.
    """
    if kind not in EXCHANGES:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(EXCHANGES)}")
    generator = torch.Generator().manual_seed(seed)
    average = mean_code(purifier, images, batch) if kind == "mean code" else None
    made = []
    for part, donor in zip(images.split(batch), donors.split(batch), strict=True):
        with torch.no_grad():
            code = purifier.encode(part)
            if kind == "other":
                code = code._replace(indices=purifier.encode(donor).indices)
            elif kind in ("random", "constant"):
                choices = [
                    torch.randint(4, indices.shape, generator=generator).to(part.device)
                    if kind == "random"
                    else torch.zeros_like(indices)
                    for indices in code.indices
                ]
                places = (placed(choice, size) for choice, size in zip(choices, code.sizes, strict=True))
                code = code._replace(indices=tuple(places))
            elif average is not None:
                code = code._replace(bottleneck=average.expand_as(code.bottleneck))
            made.append(purifier.decode(code))
    return torch.cat(made)
