"""Broken defences, each wrong in one way that the literature knows, and sound ones: what the audit is tried on.

All stand before the released digits classifier. An entry says which check is meant to fail (or warn) on it.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import s2snet
from s2snet import data, runs, weights
from s2snet.data import Images
from s2snet.evaluation.defences import Defence
from s2snet.evaluation.run import Job
from s2snet.models import Defended

EPS = 0.1
COUNT = 96
FOLDER = runs.released() / "digits"
PGD = {"pgd": {"name": "pgd", "steps": 40, "loss": "margin"}, "fgsm": {"name": "fgsm", "loss": "margin"}}
ROUTES = {"temperature": 0.1, "fit_steps": 50, "smoothing": 0.05, "draws": 8, "sources": None}


class Wrap(nn.Module):
    """A purifier or a head from a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Changed(nn.Module):
    """A classifier whose logits pass through a function."""

    def __init__(self, inner: nn.Module, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.inner(images))


class _Faint(torch.autograd.Function):
    """The same value, with a gradient of next to nothing."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * 1e-30


class _Lying(torch.autograd.Function):
    """The same value, with a gradient that points nowhere."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.flip(-1).roll(3, -2)


class Remembering(nn.Module):
    """A purifier that takes away a bit of the mean of what it has seen."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, 32, 32))

    def forward(self, images: Tensor) -> Tensor:
        self.seen.mul_(0.9).add_(0.1 * images.detach().mean(dim=0))
        return images - 0.2 * self.seen


class Detached(nn.Module):
    """An S2SNet whose encoder is left detached, as in training (papers: the released network does so there)."""

    def __init__(self, autoencoder: nn.Module):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        return self.autoencoder.decode(self.autoencoder.encode(images.detach()))


class LookUp(nn.Module):
    """A purifier that answers with the nearest training image."""

    def __init__(self, known: Tensor):
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, images: Tensor) -> Tensor:
        return self.known[torch.cdist(images.flatten(1), self.known.flatten(1)).argmin(dim=1)]


def jpeg(quality: int) -> Callable[[Tensor], Tensor]:
    """Compresses and reads again: no gradient passes."""

    def compress(images: Tensor) -> Tensor:
        found = []
        for image in (images.detach()[:, 0] * 255).round().clamp(0, 255).byte().numpy():
            held = io.BytesIO()
            Image.fromarray(image).save(held, "JPEG", quality=quality)
            found.append(torch.from_numpy(np.array(Image.open(held))).float() / 255)
        return torch.stack(found)[:, None]

    return compress


def sometimes_nan(images: Tensor) -> Tensor:
    bright = images.mean(dim=(1, 2, 3), keepdim=True) > 0.33
    return torch.where(bright, images * torch.nan, images)


def winners(x: Tensor) -> Tensor:
    """k-winners-take-all: of each image's activations the largest tenth stays."""
    flat = x.flatten(1)
    least = flat.topk(max(1, flat.shape[1] // 10), dim=1).values[:, -1:]
    return (flat * (flat >= least)).view_as(x)


def classifier() -> nn.Module:
    return s2snet.load(FOLDER / "classifier-small_cnn.safetensors")


def adversarial() -> nn.Module:
    return s2snet.load(FOLDER / "adversarial-small_cnn.safetensors")


def autoencoder() -> nn.Module:
    return s2snet.load(FOLDER / "autoencoder-segnet_small.safetensors")


def in_training_mode() -> nn.Module:
    model = classifier()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
    return model


def with_winners() -> nn.Module:
    model = classifier()
    features = [Wrap(winners) if isinstance(layer, nn.ReLU) else layer for layer in model.features]
    model.features = nn.Sequential(*features)
    return model


def linear() -> nn.Module:
    """A linear classifier fitted to the training digits."""
    train = data.load("digits").train
    x, y = train.images.flatten(1) - 0.5, functional.one_hot(train.labels, 10).float()
    layer = nn.Linear(x.shape[1], 10)
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y, driver="gelsd").solution
    layer.weight.data, layer.bias.data = 10 * solved[:-1].T.contiguous(), 10 * solved[-1]
    return nn.Sequential(Wrap(lambda images: images.flatten(1) - 0.5), layer).eval()


@dataclass
class Entry:
    """One defence of the gallery: how it is built, what is changed around it, and which check must see it."""

    caught_by: str  # a name in CHECKS; empty for a sound one
    verdict: str = "fail"
    purifier: Callable[[], nn.Module] | None = None
    classifier: Callable[[], nn.Module] = classifier
    job: dict[str, Any] = field(default_factory=dict)  # what the Job is given instead
    images: Callable[[Images], Images] = lambda images: images

    def build(self) -> Defended:
        purifier = self.purifier() if self.purifier else None
        if purifier is not None:
            purifier.train(False)
        module = Defended(purifier, self.classifier())
        module.training = False
        return module


def _normalised(images: Images) -> Images:
    return _like(images, (images.images - 0.5) / 0.5, images.labels)


def _shifted(images: Images) -> Images:
    return _like(images, images.images, (images.labels + 1) % 10)


def _like(images: Images, pixels: Tensor, labels: Tensor) -> Images:
    return Images(pixels, labels, images.index, images.classes, images.mean, images.std)


def _pgd(**options) -> dict[str, Any]:
    return {"attacks": {"pgd": {"name": "pgd", "loss": "margin", **options}, "fgsm": PGD["fgsm"]}}


BROKEN = {
    "detached purifier": Entry("zero_gradients", purifier=lambda: Wrap(lambda x: x.detach())),
    "detached encoder": Entry("zero_gradients", purifier=lambda: Detached(autoencoder())),
    "8 bits": Entry("zero_gradients", purifier=lambda: Wrap(lambda x: (x * 255).round() / 255)),
    "3 bits": Entry("zero_gradients", purifier=lambda: Wrap(lambda x: (x * 7).round() / 7)),
    "jpeg 75": Entry("zero_gradients", purifier=lambda: Wrap(jpeg(75))),
    "look-up": Entry("zero_gradients", purifier=lambda: LookUp(data.load("digits").train.images)),
    "lying backward": Entry("finite_differences", purifier=lambda: Wrap(_Lying.apply)),
    "gradient x 1e-30": Entry("finite_differences", purifier=lambda: Wrap(_Faint.apply)),
    "additive noise": Entry("randomness", "warn", purifier=lambda: Wrap(lambda x: x + 0.05 * torch.randn_like(x))),
    "softmax head": Entry("output_head", classifier=lambda: Changed(classifier(), lambda z: z.softmax(dim=1))),
    "logits x 1000": Entry(
        "saturated_logits",
        classifier=lambda: Changed(classifier(), lambda z: 1000 * z),
        job={"attacks": {"pgd": {"name": "pgd", "steps": 40, "loss": "cross_entropy"}}},
    ),
    "BatchNorm in training mode": Entry("test_time_state", classifier=in_training_mode),
    "buffer that remembers": Entry("test_time_state", purifier=Remembering),
    "NaN for some images": Entry("nan_gradients", purifier=lambda: Wrap(sometimes_nan)),
    "labels shifted by one": Entry("label_alignment", images=_shifted),
    "step too small": Entry("step_budget", job=_pgd(steps=4, step_size=EPS / 20)),
    "one step": Entry("converged", job={**_pgd(steps=1, step_size=EPS / 4), "audit": "full"}, classifier=adversarial),
    "step too large": Entry("step_budget", job=_pgd(steps=40, step_size=3 * EPS)),
    "k winners take all": Entry("finite_differences", "warn", classifier=with_winners),
}
SOUND = {
    "plain classifier": Entry(""),
    "adversarially trained": Entry("", classifier=adversarial),
    "linear": Entry("", classifier=linear),
    "log-softmax head": Entry("", classifier=lambda: Changed(classifier(), lambda z: z.log_softmax(dim=1))),
}


def job(entry: Entry, output: Path, count: int = COUNT, **changed) -> Job:
    """The evaluation of one entry: white box by exact and identity, gray box, FGSM and PGD-40 on the margin."""
    module = entry.build()
    splits = data.load("digits")
    given = {
        "name": "digits",
        "images": entry.images(splits.test),
        "train": splits.train,
        "defences": [Defence("mine", "mine", module, [], weights.fingerprint(module), "made up")],
        "threats": {
            "gray_box": {"name": "gray_box", "routes": [], **ROUTES},
            "white_box": {"name": "white_box", "routes": ["exact", "identity"], **ROUTES},
        },
        "attacks": PGD,
        "budgets": {"linf": [EPS]},
        "output": Path(output),
        "count": count,
        "samples": 0,
    }
    return Job(**(given | entry.job | changed))
