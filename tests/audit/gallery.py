"""Broken defences, each wrong in one way that the literature knows, and sound ones: what the audit is tried on.

All stand before the released digits classifier, or are it, changed. An entry says which check is meant to fail (or
warn) on it. Entries that are attacked alike are evaluated together, which crafts gray box once.
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
from s2snet import data, models
from s2snet.attacks import ATTACKS
from s2snet.audit import checks
from s2snet.audit.probes.measure import measure
from s2snet.config.evaluation import evaluation_of
from s2snet.config.runtime import Trainer
from s2snet.data import Images
from s2snet.evaluation.job import Job
from s2snet.evaluation.run import run
from s2snet.models import Defended
from s2snet.store import paths, weights
from s2snet.store.defences import Defence

EPS = 0.1
COUNT = 64  # with fewer the interval of a sound classifier is over 5 points wide
FOLDER = paths.released() / "digits"
PGD = {"pgd": {"name": "pgd", "steps": 20, "loss": "margin"}, "fgsm": {"name": "fgsm", "loss": "margin"}}
ROUTES = {"temperature": 0.1, "fit_steps": 50, "smoothing": 0.05, "draws": 2, "sources": None}


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


def index_maps() -> nn.Module:
    """A small SegNet that unpools by the encoder's indices, trained to reproduce digits: seconds."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        purifier = models.build("segnet_small", widths=(8, 16), convs=(1, 1), unpool="indices", bn_momentum=0.3)
    train = data.load("digits").train.images
    optimiser = torch.optim.Adam(purifier.parameters(), lr=0.01)
    for batch in torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).split(32)[:40]:
        loss = functional.mse_loss(purifier(train[batch]), train[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return purifier.eval()


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
    part: str = ""  # that the finding must name; empty: any
    purifier: Callable[[], nn.Module] | None = None
    classifier: Callable[[], nn.Module] = classifier
    job: dict[str, Any] = field(default_factory=dict)  # what the Job is given instead
    images: Callable[[Images], Images] = lambda images: images
    count: int = COUNT

    def build(self, name: str) -> Defended:
        """The module; parts that are not released ones get the entry's name, or equal prints would be taken for one."""
        purifier = self.purifier() if self.purifier else None
        if purifier is not None:
            purifier.train(False)
            purifier.config = {"gallery": name}
        module = Defended(purifier, self.classifier())
        if self.classifier not in (classifier, adversarial):
            module.classifier.config = {"gallery": name}
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


def idle(model, images: Tensor, labels: Tensor, *, steps: int = 40, **given) -> Tensor:
    """An attack that takes one step whatever it is told."""
    return ATTACKS["pgd"](model, images, labels, steps=1, **given)


idle.version, idle.norms, idle.minimal = 1, ("linf",), False
IDLE = {"idle": idle}  # to be added to ATTACKS while the gallery runs

BROKEN = {
    "detached purifier": Entry("zero_gradients", "fail", "purifier", purifier=lambda: Wrap(lambda x: x.detach())),
    "detached encoder": Entry("zero_gradients", "fail", "purifier", purifier=lambda: Detached(autoencoder())),
    "8 bits": Entry("zero_gradients", "fail", "purifier", purifier=lambda: Wrap(lambda x: (x * 255).round() / 255)),
    "3 bits": Entry("zero_gradients", "fail", "purifier", purifier=lambda: Wrap(lambda x: (x * 7).round() / 7)),
    "jpeg 75": Entry("zero_gradients", "fail", "purifier", purifier=lambda: Wrap(jpeg(75))),
    "look-up": Entry("zero_gradients", "fail", "purifier", purifier=lambda: LookUp(data.load("digits").train.images)),
    "lying backward": Entry("finite_differences", "fail", "purifier", purifier=lambda: Wrap(_Lying.apply)),
    "gradient x 1e-30": Entry("finite_differences", "fail", "purifier", purifier=lambda: Wrap(_Faint.apply)),
    "additive noise": Entry("randomness", "warn", purifier=lambda: Wrap(lambda x: x + 0.05 * torch.randn_like(x))),
    "softmax head": Entry("output_head", classifier=lambda: Changed(classifier(), lambda z: z.softmax(dim=1))),
    "logits x 1000": Entry(
        "saturated_logits",
        classifier=lambda: Changed(classifier(), lambda z: 1000 * z),
        job={"attacks": {"pgd": {"name": "pgd", "steps": 20, "loss": "cross_entropy"}}},
    ),
    "BatchNorm in training mode": Entry("test_time_state", classifier=in_training_mode),
    "buffer that remembers": Entry("test_time_state", purifier=Remembering),
    "NaN for some images": Entry("nan_gradients", purifier=lambda: Wrap(sometimes_nan)),
    "labels shifted by one": Entry("label_alignment", images=_shifted),
    "normalised pixels": Entry("input_range", images=_normalised),
    "step too small": Entry("step_budget", job=_pgd(steps=4, step_size=EPS / 20)),
    "step too large": Entry("step_budget", job=_pgd(steps=20, step_size=3 * EPS)),
    "stands still": Entry(
        "active_test",
        job={"attacks": {"pgd": {"name": "pgd", "steps": 2, "step_size": EPS / 50}}, "audit": "full"},
        count=16,
    ),
    "one step": Entry(
        "converged", classifier=adversarial, job={**_pgd(steps=1, step_size=EPS / 4), "audit": "full"}, count=16
    ),
    "one step named as forty": Entry(
        "counted_passes", classifier=adversarial, job={"attacks": {"pgd": {"name": "idle", "steps": 40}}}
    ),
    "k winners take all": Entry("jumps", "fail", "classifier", classifier=with_winners),
    "pooling by indices": Entry("jumps", "fail", "purifier", purifier=index_maps),
}
SOUND = {
    "plain classifier": Entry(""),
    "adversarially trained": Entry("", classifier=adversarial),
    "linear": Entry("", classifier=linear),
    "log-softmax head": Entry("", classifier=lambda: Changed(classifier(), lambda z: z.log_softmax(dim=1))),
}


def evaluated(entries: dict[str, Entry], output: Path) -> dict[str, Path]:
    """{entry: its result folder}, audited: white box by exact and identity, gray box, FGSM and PGD on the margin.

    What changes the whole evaluation (images, attacks, count) makes one of its own.
    """
    groups: dict[str, dict[str, Entry]] = {}
    for name, entry in entries.items():
        alone = entry.job or entry.count != COUNT or entry.images is not Entry.images
        groups.setdefault(name if alone else "together", {})[name] = entry
    folders = {}
    for number, group in enumerate(groups.values()):
        folder = run(job(group, Path(output) / str(number)), lambda text: None, probe=measure)
        checks.write(folder)
        folders |= dict.fromkeys(group, folder)
    return folders


def job(entries: dict[str, Entry], output: Path) -> Job:
    """One evaluation of entries that are attacked alike."""
    entry = next(iter(entries.values()))
    splits = data.load("digits")
    modules = {name: entry.build(name) for name, entry in entries.items()}
    given = {
        "name": "digits",
        "images": entry.images(splits.test),
        "train": splits.train,
        "defences": [
            Defence(name, name, module, [], weights.fingerprint(module), "made up") for name, module in modules.items()
        ],
        "output": Path(output),
    }
    options = {
        "threats": {"gray_box": {"routes": [], **ROUTES}, "white_box": {"routes": ["exact", "identity"], **ROUTES}},
        "attacks": PGD,
        "budgets": {"linf": [EPS]},
        "images": entry.count,
        "samples": 0,
        "trainer": Trainer(accelerator="cpu", progress=False),
    }
    return Job(config=evaluation_of(**(options | entry.job)), **given)
