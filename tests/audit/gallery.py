"""A gallery of broken defences, each with one fault known from the literature, and of sound ones, to test the audit on.

Each is built around the networks that it is given: `Released`, or `Small`, which trains its own in seconds. An entry
names the check that must fail (or warn) on it. Entries that are attacked in the same way are evaluated together, so
that gray box is crafted once.
"""

import copy
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
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
PGD = {"pgd": {"name": "pgd", "steps": 20, "loss": "margin"}, "fgsm": {"name": "fgsm", "loss": "margin"}}
ROUTES = {"temperature": 0.1, "fit_steps": 50, "smoothing": 0.05, "draws": 2, "sources": None}


class Released:
    """The released digits networks and their data, 32 pixels wide."""

    count = 64  # images; with fewer, the interval of a sound classifier is over 5 points wide

    def classifier(self) -> nn.Module:
        return self._load("classifier-small_cnn")

    def adversarial(self) -> nn.Module:
        return self._load("adversarial-small_cnn")

    def autoencoder(self) -> nn.Module:
        return self._load("autoencoder-segnet_small")

    @cached_property
    def splits(self) -> data.Splits:
        return data.load("digits")

    def _load(self, name: str) -> nn.Module:
        return s2snet.load(paths.released() / "digits" / f"{name}.safetensors")


class Small(Released):
    """Small networks of the same kinds, trained on digits of 16 pixels when they are first needed."""

    count = 32

    @cached_property
    def splits(self) -> data.Splits:
        return data.load("digits", size=16)

    def _load(self, name: str) -> nn.Module:
        if name not in self._trained:
            self._trained[name] = self._train(name)
        return copy.deepcopy(self._trained[name])

    @cached_property
    def _trained(self) -> dict[str, nn.Module]:
        return {}

    def _train(self, name: str) -> nn.Module:
        if name.startswith("autoencoder"):
            return fitted(self.splits.train, 120, widths=(8, 16), convs=(1, 1))
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = models.build("small_cnn", widths=(8, 16, 32))
        steps, lr = 160, 0.03
        optimiser = torch.optim.Adam(model.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
        for images, labels in batches(self.splits.train, steps):
            if name.startswith("adversarial"):
                images = ATTACKS["fgsm"](model.eval(), images, labels, eps=EPS)
            loss = functional.cross_entropy(model.train()(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        return model.eval()


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
    """The same value, with a gradient of nearly zero."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * 1e-30


class _Scrambled(torch.autograd.Function):
    """The same value, with a gradient that points in no useful direction."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.flip(-1).roll(3, -2)


class Remembering(nn.Module):
    """A purifier that subtracts part of the mean of earlier images."""

    def __init__(self, image: Tensor):
        super().__init__()
        self.register_buffer("seen", torch.zeros_like(image))

    def forward(self, images: Tensor) -> Tensor:
        self.seen.mul_(0.9).add_(0.1 * images.detach().mean(dim=0))
        return images - 0.2 * self.seen


class Detached(nn.Module):
    """An S2SNet whose encoder is left detached, as in its training."""

    def __init__(self, autoencoder: nn.Module):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        return self.autoencoder.decode(self.autoencoder.encode(images.detach()))


class LookUp(nn.Module):
    """A purifier that returns the nearest training image."""

    def __init__(self, known: Tensor):
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, images: Tensor) -> Tensor:
        return self.known[torch.cdist(images.flatten(1), self.known.flatten(1)).argmin(dim=1)]


def jpeg(quality: int) -> Callable[[Tensor], Tensor]:
    """Compress and decompress; no gradient passes through."""

    def compress(images: Tensor) -> Tensor:
        decompressed = []
        for image in (images.detach()[:, 0] * 255).round().clamp(0, 255).byte().numpy():
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=quality)
            decompressed.append(torch.from_numpy(np.array(Image.open(file))).float() / 255)
        return torch.stack(decompressed)[:, None]

    return compress


def sometimes_nan(images: Tensor) -> Tensor:
    bright = images.mean(dim=(1, 2, 3), keepdim=True) > 0.33
    return torch.where(bright, images * torch.nan, images)


def winners(x: Tensor) -> Tensor:
    """k-winners-take-all: keep the largest tenth of each image's activations."""
    flat = x.flatten(1)
    least = flat.topk(max(1, flat.shape[1] // 10), dim=1).values[:, -1:]
    return (flat * (flat >= least)).view_as(x)


def batches(train: Images, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this many shuffled batches of 32 (images, labels)."""
    draw = torch.Generator().manual_seed(0)
    while steps > 0:
        for batch in torch.randperm(len(train), generator=draw).split(32)[:steps]:
            yield train.images[batch], train.labels[batch]
            steps -= 1


def fitted(train: Images, steps: int, **options) -> nn.Module:
    """Return a small SegNet trained to reproduce digits."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        purifier = models.build("segnet_small", **options)
    optimiser = torch.optim.Adam(purifier.parameters(), lr=0.01)
    for images, _ in batches(train, steps):
        loss = functional.mse_loss(purifier(images), images)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return purifier.eval()


def index_maps(networks: Released) -> nn.Module:
    """Return a SegNet that unpools by the encoder's indices."""
    options = {"widths": (8, 16), "convs": (1, 1), "unpool": "indices", "bn_momentum": 0.3}
    return fitted(networks.splits.train, 40, **options)


def in_training_mode(networks: Released) -> nn.Module:
    model = networks.classifier()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
    return model


def with_winners(networks: Released) -> nn.Module:
    model = networks.classifier()
    features = [Wrap(winners) if isinstance(layer, nn.ReLU) else layer for layer in model.features]
    model.features = nn.Sequential(*features)
    return model


def linear(networks: Released) -> nn.Module:
    """Return a linear classifier, fitted to the training digits by least squares."""
    train = networks.splits.train
    x, y = train.images.flatten(1) - 0.5, functional.one_hot(train.labels, 10).float()
    layer = nn.Linear(x.shape[1], 10)
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y, driver="gelsd").solution
    layer.weight.data, layer.bias.data = 10 * solved[:-1].T.contiguous(), 10 * solved[-1]
    return nn.Sequential(Wrap(lambda images: images.flatten(1) - 0.5), layer).eval()


def plain(networks: Released) -> nn.Module:
    return networks.classifier()


def adversarial(networks: Released) -> nn.Module:
    return networks.adversarial()


@dataclass
class Entry:
    """One defence of the gallery: how it is built, what is changed around it, and which check must catch it."""

    caught_by: str  # a name in CHECKS; empty for a sound defence
    verdict: str = "fail"
    part: str = ""  # that the finding must name; empty: any
    purifier: Callable[[Released], nn.Module] | None = None
    classifier: Callable[[Released], nn.Module] = plain
    job: dict[str, Any] = field(default_factory=dict)  # changes to the Job
    images: Callable[[Images], Images] = lambda images: images
    count: int | None = None  # of images, instead of the networks' count

    def build(self, name: str, networks: Released) -> Defended:
        """Return the module. Changed parts are named after the entry, because their tensors may be those of another."""
        purifier = self.purifier(networks) if self.purifier else None
        if purifier is not None:
            purifier.train(False)
            purifier.config = {"gallery": name}
        module = Defended(purifier, self.classifier(networks))
        if self.classifier not in (plain, adversarial):
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
    """Take one step, whatever `steps` is."""
    return ATTACKS["pgd"](model, images, labels, steps=1, **given)


idle.version, idle.norms, idle.minimal = 1, ("linf",), False
IDLE = {"idle": idle}  # to be added to ATTACKS while the gallery runs

BROKEN = {
    "detached purifier": Entry("zero_gradients", "fail", "purifier", purifier=lambda _: Wrap(lambda x: x.detach())),
    "detached encoder": Entry("zero_gradients", "fail", "purifier", purifier=lambda n: Detached(n.autoencoder())),
    "8 bits": Entry("zero_gradients", "fail", "purifier", purifier=lambda _: Wrap(lambda x: (x * 255).round() / 255)),
    "3 bits": Entry("zero_gradients", "fail", "purifier", purifier=lambda _: Wrap(lambda x: (x * 7).round() / 7)),
    "jpeg 75": Entry("zero_gradients", "fail", "purifier", purifier=lambda _: Wrap(jpeg(75))),
    "look-up": Entry("zero_gradients", "fail", "purifier", purifier=lambda n: LookUp(n.splits.train.images)),
    "lying backward": Entry("finite_differences", "fail", "purifier", purifier=lambda _: Wrap(_Scrambled.apply)),
    "gradient x 1e-30": Entry("finite_differences", "fail", "purifier", purifier=lambda _: Wrap(_Faint.apply)),
    "additive noise": Entry("randomness", "warn", purifier=lambda _: Wrap(lambda x: x + 0.05 * torch.randn_like(x))),
    "softmax head": Entry("output_head", classifier=lambda n: Changed(n.classifier(), lambda z: z.softmax(dim=1))),
    "logits x 1000": Entry(
        "saturated_logits",
        classifier=lambda n: Changed(n.classifier(), lambda z: 1000 * z),
        job={"attacks": {"pgd": {"name": "pgd", "steps": 20, "loss": "cross_entropy"}}},
    ),
    "BatchNorm in training mode": Entry("test_time_state", classifier=in_training_mode),
    "buffer that remembers": Entry("test_time_state", purifier=lambda n: Remembering(n.splits.test.images[0])),
    "NaN for some images": Entry("nan_gradients", purifier=lambda _: Wrap(sometimes_nan)),
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
    "log-softmax head": Entry("", classifier=lambda n: Changed(n.classifier(), lambda z: z.log_softmax(dim=1))),
}


def evaluated(entries: dict[str, Entry], output: Path, networks: Released) -> dict[str, Path]:
    """Return {entry: its result folder}, audited: white box by exact and identity, gray box, FGSM and PGD.

    An entry with other images, attacks or count has an evaluation of its own.
    """
    groups: dict[str, dict[str, Entry]] = {}
    for name, entry in entries.items():
        alone = entry.job or entry.count or entry.images is not Entry.images
        groups.setdefault(name if alone else "together", {})[name] = entry
    folders = {}
    for number, group in enumerate(groups.values()):
        folder = run(job(group, Path(output) / str(number), networks), lambda text: None, probe=measure)
        checks.write(folder)
        folders |= dict.fromkeys(group, folder)
    return folders


def job(entries: dict[str, Entry], output: Path, networks: Released) -> Job:
    """Return one evaluation of entries that are attacked in the same way."""
    entry = next(iter(entries.values()))
    splits = networks.splits
    modules = {name: entry.build(name, networks) for name, entry in entries.items()}
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
        "images": entry.count or networks.count,
        "samples": 0,
        "trainer": Trainer(accelerator="cpu", progress=False),
    }
    return Job(config=evaluation_of(**(options | entry.job)), **given)
