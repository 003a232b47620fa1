"""What networks make of attacked images and of noise, as rows: errors, confidence, agreement, false positives."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from s2snet.analysis import intervals
from s2snet.analysis.batched import BATCH
from s2snet.analysis.linearity.nets import Net
from s2snet.analysis.linearity.steps import direction, probabilities, sign_step

CHUNK = 2000  # random images held at a time


class Ensemble(Net):
    """Nets whose probabilities are averaged; its cost is -log of the label's average, so all are attacked at once."""

    def __init__(self, nets: list[Net]):
        super().__init__()
        self.members = torch.nn.ModuleList(nets)

    def probabilities(self, images: Tensor) -> Tensor:
        return torch.stack([net.probabilities(images) for net in self.members]).mean(dim=0)

    def forward(self, images: Tensor) -> Tensor:
        """log of the average probabilities: scores of a softmax head, whose probabilities they then are."""
        return self.probabilities(images).clamp(min=1e-30).log()


def crafted(net: Net, images: Tensor, labels: Tensor, eps: float, clipped: bool) -> Tensor:
    """One sign step of eps against the net; `clipped` cuts the result to [0, 1], which the paper does not."""
    found = sign_step(net, images, labels, eps)
    return found.clamp(0, 1) if clipped else found


def judged(net: Net, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """The share of wrong images, with its interval, and the mean confidence (largest probability), over all and over
    the mistakes, each with its bootstrap interval; None over no mistakes. One forward an image."""
    answers = probabilities(net, images)
    wrong = (answers.argmax(dim=1) != labels).cpu()
    confidence = answers.amax(dim=1).cpu()
    error = intervals.share(int(wrong.sum()), len(wrong))
    row: dict[str, Any] = {"n": error.n, "error": error.value, "low": error.low, "high": error.high}
    for name, among in (("confidence", torch.ones_like(wrong)), ("confidence_mistakes", wrong)):
        found = intervals.mean(confidence[among].numpy()) if among.any() else None
        row |= {name: found and found.value, f"{name}_low": found and found.low, f"{name}_high": found and found.high}
    return row


def agreements(nets: dict[str, Net], images: Tensor, labels: Tensor, source: str) -> Iterator[dict[str, Any]]:
    """How often each other net says the same wrong class as a `first`, on images made against `source`.

    For every ordered pair: over the images where `first` is wrong, and over those where both are.
    """
    said = {name: probabilities(net, images).argmax(dim=1) for name, net in nets.items()}
    for first, its in said.items():
        for second, others in said.items():
            wrong = its != labels
            for among, chosen in (("first wrong", wrong), ("both wrong", wrong & (others != labels))):
                if first == second or not chosen.any():
                    continue
                same = intervals.share(int((its == others)[chosen].sum()), int(chosen.sum()))
                row = {"made_on": source, "first": first, "second": second, "among": among, "n": same.n}
                yield row | {"same": same.value, "low": same.low, "high": same.high}


def rubbish(net: Net, shape: torch.Size, count: int, seed: int, device: torch.device) -> dict[str, Any]:
    """N(0, 1) images that the net takes for something: any class with probability above one half is an error.

    The same images for every net. `confidence` is the mean largest probability over the errors; `class 0` etc. are the
    shares of the errors with that class; None where there are no errors. One forward an image.
    """
    answers = torch.cat([probabilities(net, noise) for noise in normal(shape, count, seed, device)])
    confidence, said = answers.max(dim=1)
    wrong = confidence > 0.5
    error = intervals.share(int(wrong.sum()), count)
    row = {"n": count, "error": error.value, "low": error.low, "high": error.high, "confidence": None}
    classes = {f"class {k}": None for k in range(answers.shape[1])}
    if wrong.any():
        row["confidence"] = confidence[wrong].mean().item()
        classes = {f"class {k}": (said[wrong] == k).double().mean().item() for k in range(answers.shape[1])}
    return row | classes


def fooling(net: Net, shape: torch.Size, count: int, eps: float, seed: int, device: torch.device) -> Iterator[dict]:
    """Per class: the share of N(0, 1) images that one sign step of eps toward the class gives p(class) > 1/2.

    `before` is the share that has it without the step. Two forwards and a backward an image and class.
    """
    images = torch.cat(list(normal(shape, count, seed, device)))
    before = probabilities(net, images)
    for wanted in range(before.shape[1]):
        stepped = toward(net, images, wanted, eps)
        done = probabilities(net, stepped)[:, wanted] > 0.5
        found = intervals.share(int(done.sum()), count)
        row = {"class": wanted, "n": count, "success": found.value, "low": found.low, "high": found.high}
        yield row | {"before": (before[:, wanted] > 0.5).double().mean().item()}


def toward(net: Net, images: Tensor, wanted: int, eps: float) -> Tensor:
    """images one sign step of eps down the cost of the class `wanted`, not clipped."""
    labels = torch.full((len(images),), wanted, device=images.device)
    return images - eps * direction(net.cost, images, labels, BATCH)


def normal(shape: torch.Size, count: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """`count` images of N(0, 1) pixels, CHUNK at a time, the same ones for the same seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, count, CHUNK):
        yield torch.randn(min(CHUNK, count - first), *shape, generator=generator).to(device)
