"""Networks on attacked images and on noise, as rows: errors, confidence, agreement, false positives."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from s2snet.analysis import intervals
from s2snet.analysis.batched import BATCH
from s2snet.analysis.linearity.measures import direction, probabilities, sign_step
from s2snet.analysis.linearity.nets import Net

CHUNK = 2000  # random images in memory at a time


class Ensemble(Net):
    """Nets whose probabilities are averaged; the cost is -log of the label's average, so all are attacked at once."""

    def __init__(self, nets: list[Net]):
        super().__init__()
        self.members = torch.nn.ModuleList(nets)

    def probabilities(self, images: Tensor) -> Tensor:
        return torch.stack([net.probabilities(images) for net in self.members]).mean(dim=0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the log of the average probabilities: scores whose softmax is the average."""
        return self.probabilities(images).clamp(min=1e-30).log()


def craft(net: Net, images: Tensor, labels: Tensor, eps: float, clipped: bool) -> Tensor:
    """Return the images after one sign step of eps against the net, `clipped` to [0, 1] or, as in the paper, not."""
    stepped = sign_step(net, images, labels, eps)
    return stepped.clamp(0, 1) if clipped else stepped


def judge(net: Net, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the share of wrong images and the mean confidence (largest probability), with their intervals.

    Confidence is over all images and over the mistakes; None if there are no mistakes. One forward an image.
    """
    outputs = probabilities(net, images)
    wrong = (outputs.argmax(dim=1) != labels).cpu()
    confidence = outputs.amax(dim=1).cpu()
    error = intervals.share(int(wrong.sum()), len(wrong))
    row: dict[str, Any] = {"n": error.n, "error": error.value, "low": error.low, "high": error.high}
    for name, among in (("confidence", torch.ones_like(wrong)), ("confidence_mistakes", wrong)):
        known = among.any()
        mean = intervals.mean(confidence[among].numpy()).columns(name) if known else {}
        row |= {key: mean.get(key) for key in (name, f"{name}_low", f"{name}_high")}
    return row


def agreements(nets: dict[str, Net], images: Tensor, labels: Tensor, source: str) -> Iterator[dict[str, Any]]:
    """Yield how often each other net predicts the same wrong class as a `first`, on images crafted against `source`.

    There is a row for every ordered pair, over the images on which `first` is wrong, and over those on which both are.
    """
    predictions = {name: probabilities(net, images).argmax(dim=1) for name, net in nets.items()}
    for first, own in predictions.items():
        for second, others in predictions.items():
            wrong = own != labels
            for among, chosen in (("first wrong", wrong), ("both wrong", wrong & (others != labels))):
                if first == second or not chosen.any():
                    continue
                same = intervals.share(int((own == others)[chosen].sum()), int(chosen.sum()))
                row = {"made_on": source, "first": first, "second": second, "among": among, "n": same.n}
                yield row | {"same": same.value, "low": same.low, "high": same.high}


def rubbish(net: Net, shape: torch.Size, count: int, seed: int, device: torch.device) -> dict[str, Any]:
    """Return the share of N(0, 1) images with an error: a class with probability above one half.

    The images are the same for every net. `confidence` is the mean largest probability over the errors; `class 0` etc.
    are the shares of the errors with that class; None if there are no errors. One forward an image.
    """
    outputs = torch.cat([probabilities(net, noise) for noise in normal(shape, count, seed, device)])
    confidence, predictions = outputs.max(dim=1)
    wrong = confidence > 0.5
    error = intervals.share(int(wrong.sum()), count)
    row = {"n": count, "error": error.value, "low": error.low, "high": error.high, "confidence": None}
    classes = {f"class {k}": None for k in range(outputs.shape[1])}
    if wrong.any():
        row["confidence"] = confidence[wrong].mean().item()
        classes = {name: (predictions[wrong] == k).double().mean().item() for k, name in enumerate(classes)}
    return row | classes


def fooling(net: Net, shape: torch.Size, count: int, eps: float, seed: int, device: torch.device) -> Iterator[dict]:
    """Yield, per class, the share of N(0, 1) images with p(class) > 1/2 after one sign step of eps toward the class.

    `before` is the share without the step. Two forwards and a backward per image and class.
    """
    images = torch.cat(list(normal(shape, count, seed, device)))
    before = probabilities(net, images)
    for target in range(before.shape[1]):
        stepped = step_toward(net, images, target, eps)
        succeeded = probabilities(net, stepped)[:, target] > 0.5
        success = intervals.share(int(succeeded.sum()), count)
        row = {"class": target, "n": count, "success": success.value, "low": success.low, "high": success.high}
        yield row | {"before": (before[:, target] > 0.5).double().mean().item()}


def step_toward(net: Net, images: Tensor, target: int, eps: float) -> Tensor:
    """Return the images after one sign step of eps down the cost of the class `target`, not clipped."""
    labels = torch.full((len(images),), target, device=images.device)
    return images - eps * direction(net.cost, images, labels, BATCH)


def normal(shape: torch.Size, count: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Yield `count` images of N(0, 1) pixels, CHUNK at a time; a seed gives the same images on every device."""
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, count, CHUNK):
        yield torch.randn(min(CHUNK, count - first), *shape, generator=generator).to(device)
