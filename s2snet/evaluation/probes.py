"""Fresh passes for the audit: what a defence does on a few images, as plain numbers that go into probes.json.

The checks (s2snet/checks) read these numbers and see no model, so an audit can be repeated from a result folder. A
number here says what was found and never whether that is good. Every probe leaves the module as it was.

`audit=quick` takes those of `quick`, `recomputed`, `noise` and `data`; `audit=full` the attacks of `more` and
`control` as well.
"""

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet import models
from s2snet.attacks import Noise, apgd, pgd, untouched
from s2snet.attacks.losses import fooled, margin
from s2snet.evaluation.engine import repeatable
from s2snet.models import Defended

IMAGES = 16  # for each probe that takes gradients
DRAWS = 60  # of noise, half uniform, half corners of the ball
LADDER = (1e-6, 1e-8, 1e-10)  # steps of a central difference in float64: one of them misses the kinks
DIRECTIONS = 3
STRETCHES = 8  # of a path along which gradients are added up
SATURATED, LOST = 16.6, 80.0  # leads of a logit at which float32 cross-entropy loses direction; at which it is 0
TINY = 1e-12  # a gradient of that l2 length or less is as good as none
NEAR = 0.997  # correlation of two images' pixels; of different digits, MNIST and CIFAR-10 images up to 0.994
COUNTED = 1e-2  # relative error of a directional derivative above which a pair counts as wrong


def quick(
    defended: Defended, images: Tensor, labels: Tensor, eps: float, sources: dict[str, nn.Module], seed: int = 0
) -> dict[str, Callable[[], Any]]:
    """{name: probe} of one defence: `images` [B, C, H, W] in [0, 1], of which 16 are taken, `eps` a radius in linf.

    `sources` are the defence's routes by name, for what their directions are worth. All together cost about 60 passes
    in float64 and 130 in float32 for each image.
    """
    few, few_labels = images[:IMAGES], labels[:IMAGES]
    draw = torch.Generator().manual_seed(seed)
    near = noised(few, eps, draw)
    return {
        "head": lambda: head(defended, few),
        "randomness": lambda: randomness(defended, few, few_labels),
        "state": lambda: state(defended, few),
        "gradients": lambda: gradients(defended, few, few_labels, near, eps),
        "differences": lambda: differences(defended, near, few_labels, eps, draw),
        "jumps": lambda: jumps(defended, near, few_labels, eps, draw),
        "curvature": lambda: curvature(defended, near, few_labels, eps),
        "ascent": lambda: {
            route: ascent(defended, source, near, few_labels, eps, seed) for route, source in sources.items()
        },
        "inner": lambda: inner(defended, few),
        "moved": lambda: moved(defended, few),
    }


def taken(defended: nn.Module, measures: dict[str, Callable[[], Any]], seed: int = 0) -> dict[str, Any]:
    """What each probe found. One that raises (a module may refuse float64, or a backward) is {"error": text}."""
    found = {}
    for name, measure in measures.items():
        with untouched(defended, seed):
            try:
                found[name] = measure()
            except Exception as error:
                found[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    return found


def head(defended: nn.Module, images: Tensor) -> dict[str, Any]:
    """What the answers look like: probabilities, log-probabilities or logits, and how far the first leads."""
    logits = _logits(defended, images)
    top = logits.topk(2, dim=1).values
    lead = top[:, 0] - top[:, 1]
    return {
        "probabilities": bool(((logits >= 0) & (logits <= 1)).all() and (logits.sum(dim=1) - 1).abs().max() < 1e-4),
        "log_probabilities": bool(logits.logsumexp(dim=1).abs().max() < 1e-4),
        "lead_median": float(lead.median()),
        "saturated": _share(lead > SATURATED),
        "lost": _share(lead > LOST),
    }


def randomness(defended: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Largest relative difference among five answers, and between two gradients, to the same images."""
    answers = [_logits(defended, images) for _ in range(5)]
    slopes = [_gradient(defended, images, labels) for _ in range(2)]
    return {
        "logits": max(_relative(answer, answers[0]) for answer in answers[1:]),
        "gradients": 0.0 if None in (slopes[0], slopes[1]) else _relative(slopes[1], slopes[0]),
    }


def state(defended: nn.Module, images: Tensor) -> dict[str, Any]:
    """Layers in training mode, buffers that a forward writes, and whether an answer depends on its company or past."""
    training = [
        f"{name} ({type(layer).__name__})"
        for name, layer in defended.named_modules()
        if layer.training and isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
    ]
    before = {name: _digest(buffer) for name, buffer in defended.named_buffers()}
    part = images[: max(1, len(images) // 2)]
    first = _logits(defended, part)
    _logits(defended, images.flip(0))
    again = _logits(defended, part)
    alone = torch.cat([_logits(defended, image[None]) for image in part])
    together = _logits(defended, images)[: len(part)]
    after = {name: _digest(buffer) for name, buffer in defended.named_buffers()}
    return {
        "training": training[:5],
        "buffers_written": [name for name in before if before[name] != after.get(name)][:5],
        "order": _relative(again, first),
        "batch": max(_relative(alone, first), _relative(together, first)),
    }


def gradients(defended: nn.Module, images: Tensor, labels: Tensor, near: Tensor, eps: float) -> dict[str, Any]:
    """Zero, vanishing and non-finite gradients at the images, at a random point near each, at corners of the ball."""
    places = [images, near, (images + eps).clamp(max=1), (images - eps).clamp(min=0)]
    zero = tiny = cross_entropy_zero = broken = reached = total = 0
    with_logits_broken = 0
    for place, points in enumerate(places):
        with_logits_broken += int((~_logits(defended, points).isfinite().all(dim=1)).sum())
        slope = _gradient(defended, points, labels)
        if slope is None:
            slope = torch.zeros_like(points)
        else:
            reached += 1
        flat = slope.flatten(1)
        broken += int((~flat.isfinite().all(dim=1)).sum())
        if place < 2:
            total += len(flat)
            zero += int((flat == 0).all(dim=1).sum())
            tiny += int((flat.nan_to_num().norm(dim=1) < TINY).sum())
            plain = _gradient(defended, points, labels, _cross_entropy)
            plain = torch.zeros_like(points) if plain is None else plain
            cross_entropy_zero += int((plain.flatten(1) == 0).all(dim=1).sum())
    return {
        "reaches_images": reached > 0,
        "zero": zero / total,
        "tiny": tiny / total,
        "cross_entropy_zero": cross_entropy_zero / total,
        "non_finite_gradients": broken,
        "non_finite_logits": with_logits_broken,
        "points": total,
    }


def differences(
    defended: Defended, near: Tensor, labels: Tensor, eps: float, draw: torch.Generator
) -> dict[str, dict[str, float]]:
    """How far autograd is from central differences in float64: of the whole, the purifier and the classifier.

    Of each: the median and the share of (image, direction) pairs that are off by more than 1 %, and `flat`, the share
    of images at which autograd says 0 in every direction.
    """
    twin = copy.deepcopy(defended).double()
    return {
        part: _differences(scalar, at, draw)
        for part, (scalar, at) in _parts(twin, near.double(), labels, eps, draw).items()
    }


def _parts(
    defended: Defended, points: Tensor, labels: Tensor, eps: float, draw: torch.Generator
) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """{part: (a function from points to a number each, the points)} of the whole, the classifier and the purifier.

    What is drawn inside the module is the same at each call. The classifier is asked near purified images and not at
    them: one that a purifier has rounded lies on ties of max-pooling.
    """
    with torch.no_grad():
        purified = defended.purifier(points).to(points)
    shift = eps * (2 * torch.rand(purified.shape, generator=draw) - 1).to(purified)
    weight = torch.randn(purified.shape, generator=draw).to(purified)

    def alike(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            with repeatable(0, "", 0):
                return function(x)

        return call

    found = {
        "whole": (alike(lambda x: margin(defended(x), labels)), points),
        "classifier": (alike(lambda x: margin(defended.classifier(x), labels)), purified + shift),
    }
    if defended.has_purifier:
        found["purifier"] = (alike(lambda x: (defended.purifier(x) * weight).flatten(1).sum(dim=1)), points)
    return found


def _differences(scalar: Callable[[Tensor], Tensor], points: Tensor, draw: torch.Generator) -> dict[str, float]:
    values, slope = _sloped(scalar, points)
    slope = torch.zeros_like(points) if slope is None else slope.nan_to_num()
    errors = []
    for _ in range(DIRECTIONS):
        way = torch.randn(points.shape, generator=draw, dtype=points.dtype).to(points.device)
        way = functional.normalize(way.flatten(1), dim=1).view_as(points)
        said = (slope * way).flatten(1).sum(dim=1)
        off = []
        with torch.no_grad():
            for step in LADDER:
                real = (scalar(points + step * way) - scalar(points - step * way)) / (2 * step)
                size = torch.maximum(real.abs(), said.abs())
                rounding = 1e-13 * (1 + values.abs()) / step  # of the difference, a hundredfold
                off.append(torch.where(size > rounding, (real - said).abs() / size, torch.inf))
        off = torch.stack(off).amin(dim=0)
        errors.append(torch.where(off.isinf(), 0.0, off))  # no rung can tell it from 0, and autograd says 0 too
    errors = torch.cat(errors).nan_to_num(1.0)
    return {
        "median": float(errors.median()),
        "share_off": _share(errors > COUNTED),
        "pairs": len(errors),
        "flat": _share((slope.flatten(1) == 0).all(dim=1)),
    }


def _sloped(scalar: Callable[[Tensor], Tensor], points: Tensor) -> tuple[Tensor, Tensor | None]:
    """(values [B], their gradients like `points`; None where none reaches them)."""
    x = points.detach().requires_grad_(True)
    with torch.enable_grad():
        values = scalar(x)
        slope = None
        if values.requires_grad:
            (slope,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    return values.detach(), slope


def jumps(
    defended: Defended, near: Tensor, labels: Tensor, eps: float, draw: torch.Generator
) -> dict[str, dict[str, float]]:
    """How much of the change along a short path the gradients on it do not account for: whole, purifier, classifier.

    What is continuous, however many kinks it has, changes by the integral of its gradient; across a jump (an index
    that moves, a value that is rounded, an activation that drops out of the largest k) it changes by more. The path is
    a quarter of eps along random signs, in eight stretches, each with the gradient at its middle. Of each image the
    differences over the changes, both absolute and summed over the stretches: 0 without jumps, about 1 where jumps
    are all there is. `median` is that over images.
    """
    way = eps / 4 * torch.randn(near.shape, generator=draw).sign().to(near)
    parts = _parts(defended, near, labels, eps, draw)
    return {part: _jumps(scalar, at, way) for part, (scalar, at) in parts.items()}


def _jumps(scalar: Callable[[Tensor], Tensor], start: Tensor, way: Tensor) -> dict[str, float]:
    with torch.no_grad():
        ends = torch.stack([scalar(start + number / STRETCHES * way) for number in range(STRETCHES + 1)])
    changes = ends.diff(dim=0)
    said = []
    for number in range(STRETCHES):
        _, slope = _sloped(scalar, start + (number + 0.5) / STRETCHES * way)
        slope = torch.zeros_like(way) if slope is None else slope
        said.append((slope * way).flatten(1).sum(dim=1) / STRETCHES)
    said = torch.stack(said)
    changes, said = changes.double(), said.double()
    total = torch.maximum(changes.abs(), said.abs()).sum(dim=0)
    share = (changes - said).abs().sum(dim=0) / total.clamp(min=1e-300)
    return {"median": float(share.nan_to_num(1.0).median())}


def curvature(defended: nn.Module, near: Tensor, labels: Tensor, eps: float) -> dict[str, float | None]:
    """Real rise of the margin over the predicted one, along the gradient's sign: at 1/255 and at a quarter of eps."""
    slope = _gradient(defended, near, labels)
    if slope is None:
        return {"one_level": None, "quarter": None}
    predicted = slope.abs().flatten(1).sum(dim=1)
    base = _rise(defended, near, labels)
    ratios = {}
    for name, step in (("one_level", 1 / 255), ("quarter", eps / 4)):
        real = _rise(defended, near + step * slope.sign(), labels) - base
        usable = predicted > 0
        ratios[name] = float((real[usable] / (step * predicted[usable])).median()) if usable.any() else None
    return ratios


def ascent(
    defended: nn.Module, source: nn.Module, near: Tensor, labels: Tensor, eps: float, seed: int
) -> dict[str, Any]:
    """On how many images a step along the source's gradient raises the real margin more than any of four others.

    The others are three random sign steps and the opposite one, all of a quarter of eps from a random point.
    """
    slope = _gradient(source, near, labels)
    way = torch.zeros_like(near) if slope is None else slope.nan_to_num().sign()
    draw = torch.Generator().manual_seed(seed)
    others = [-way] + [torch.randn(near.shape, generator=draw).sign().to(near) for _ in range(3)]
    step = eps / 4
    along = _rise(defended, near + step * way, labels)
    best_other = torch.stack([_rise(defended, near + step * other, labels) for other in others]).amax(dim=0)
    return {"share": _share(along > best_other), "images": len(near)}


def inner(defended: nn.Module, images: Tensor) -> dict[str, Any]:
    """Whether a forward pass takes gradients of its own, and which layers with weights it calls more than once."""
    calls: dict[str, int] = {}
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls.get(name, 0) + 1))
        for name, layer in defended.named_modules()
        if not list(layer.children()) and list(layer.parameters())
    ]
    taken = 0
    real_grad, real_backward = torch.autograd.grad, torch.autograd.backward

    def counted(function):
        def call(*arguments, **options):
            nonlocal taken
            taken += 1
            return function(*arguments, **options)

        return call

    torch.autograd.grad, torch.autograd.backward = counted(real_grad), counted(real_backward)
    try:
        with torch.enable_grad():
            defended(images[:2])
    finally:
        torch.autograd.grad, torch.autograd.backward = real_grad, real_backward
        for hook in hooks:
            hook.remove()
    return {"autograd_calls": taken, "called_again": [name for name, count in calls.items() if count > 1][:5]}


def moved(defended: Defended, images: Tensor) -> dict[str, float]:
    """How far the purifier moves a clean image: the median of ||A(x) - x||_2 / ||x||_2, where that is a number."""
    with torch.no_grad():
        purified = defended.purifier(images)
    length = images.flatten(1).norm(dim=1).clamp(min=1e-12)
    return {"median": float(((purified - images).flatten(1).norm(dim=1) / length).nanmedian())}


def noise(defended: nn.Module, images: Tensor, labels: Tensor, index: Tensor, eps: float, seed: int) -> dict[str, Any]:
    """Which images any of 60 random points of the ball fools; half uniform, half corners. 60 forwards an image."""
    draw = torch.Generator().manual_seed(seed)
    fell = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for number in range(DRAWS if len(images) else 0):
        points = noised(images, eps, draw, corners=number % 2 == 1)
        fell |= fooled(_logits(defended, points), labels)
    return {"draws": DRAWS, "eps": eps, "images": index.tolist(), "fooled": index[fell.cpu()].tolist()}


def recomputed(defended: nn.Module, adversarial: Tensor, predictions: Tensor) -> dict[str, int]:
    """How many verdicts differ when kept images are judged again, all at once and one by one; near ties apart.

    Two forwards an image. A verdict counts as a tie where the first two logits are within 1e-4 of the largest.
    """
    differ, ties = torch.zeros(len(adversarial), dtype=torch.bool), torch.zeros(len(adversarial), dtype=torch.bool)
    alone = torch.cat([_logits(defended, image[None]) for image in adversarial])
    for logits in (_logits(defended, adversarial), alone):
        finite = logits.isfinite().all(dim=1)
        prediction = torch.where(finite, logits.argmax(dim=1), -1).cpu()
        first, second = logits.topk(2, dim=1).values.unbind(dim=1)
        differ |= prediction != predictions
        ties |= ((first - second) < 1e-4 * logits.abs().amax(dim=1)).cpu()
    return {"images": len(adversarial), "differ": int((differ & ~ties).sum()), "ties": int((differ & ties).sum())}


def more(
    defended: nn.Module,
    sources: dict[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    still: Tensor,
    eps: float,
    seed: int,
) -> dict[str, Any]:
    """What stronger attacks on `sources` fool: doubled steps, another loss, more restarts, other radii, no radius.

    The first three on the images that are `still` right (bool [B]): about 840 passes for each of these and source. The
    others with the margin loss on all images, 480 passes through the exact source.
    """
    # Another seed than the evaluation's: restarts that it has not tried.
    common = {"norm": "linf", "noise": Noise(seed + 1, index)}
    some = torch.nonzero(still).squeeze(1).to(images.device)
    few, few_labels, few_index = images[some], labels[some], index[still]
    narrow = common | {"noise": Noise(seed + 1, few_index)}

    def left(adversarial: Tensor, labels: Tensor) -> Tensor:
        return ~fooled(_logits(defended, adversarial), labels).cpu()

    ways = {
        "doubled steps": lambda source: apgd(source, few, few_labels, eps=eps, steps=200, **narrow),
        "margin": lambda source: apgd(source, few, few_labels, eps=eps, steps=100, loss="margin", **narrow),
        "restarts": lambda source: pgd(source, few, few_labels, eps=eps, steps=40, restarts=3, **narrow),
    }
    fell = {
        f"{route} {way}": few_index[~left(attack(source), few_labels)].tolist() if len(few) else []
        for route, source in sources.items()
        for way, attack in ways.items()
    }
    exact = next(iter(sources.values()))

    def share(radius: float, **options: Any) -> float:
        found = pgd(exact, images, labels, eps=radius, loss="margin", **options, **common)
        return float(left(found, labels).double().mean())

    return {
        "images": index.tolist(),
        "eps": eps,
        "fooled": fell,
        "curve": {repr(eps * factor): share(min(eps * factor, 1.0), steps=40) for factor in (0.25, 0.5, 1, 2, 4)},
        "eps_one": share(1.0, steps=40, step_size=1 / 16),
    }


def control(
    defended: Defended,
    batches: Callable[[Tensor], Tensor],
    count: int,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    eps: float,
    seed: int,
    steps: int = 300,
) -> dict[str, Any]:
    """What PGD-40 leaves of the defence, and of its classifier behind the same architecture fitted to the identity.

    The control is built anew from the purifier's config and learns on training images, `batches(places)` of `count`,
    to give them back; it has never heard of the classifier. What it withstands, the architecture withstands.
    """
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # inside `taken`, which restores it
    purifier = models.build(**defended.purifier.config).to(images.device).train()
    with torch.enable_grad():
        optimiser = torch.optim.Adam(purifier.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            batch = batches(torch.randint(count, (min(32, count),), generator=draw)).to(images.device)
            optimiser.zero_grad()
            functional.mse_loss(purifier(batch), batch).backward()
            optimiser.step()
            schedule.step()
    found: dict[str, Any] = {"images": len(images), "eps": eps, "clean": {}, "left": {}}
    for name, module in (("defence", defended), ("control", Defended(purifier.eval(), defended.classifier))):
        adversarial = pgd(
            module, images, labels, eps=eps, norm="linf", steps=40, loss="margin", noise=Noise(seed, index)
        )
        for what, points in (("clean", images), ("left", adversarial)):
            found[what][name] = 1 - _share(fooled(_logits(module, points), labels))
    return found


def data(images: Sequence, train: Sequence | None, most: int = 20_000) -> dict[str, Any]:
    """Pixels outside [0, 1] and off the grid of 8 bits; test images that are training images, or nearly are."""
    outside = off = pixels = 0
    digests: dict[str, int] = {}
    for place in range(min(len(images), most)):
        image = images[place][0]
        outside += int(((image < 0) | (image > 1) | ~image.isfinite()).sum())
        off += int(((image * 255 - (image * 255).round()).abs() > 1e-3).sum())
        pixels += image.numel()
        digests.setdefault(_digest(image), int(images[place][2]))
    leaked = []
    if train is not None:
        for place in range(min(len(train), most)):
            found = digests.get(_digest(train[place][0]))
            if found is not None:
                leaked.append(found)
    return {
        "outside": outside / max(pixels, 1),
        "off_grid": off / max(pixels, 1),
        "read": min(len(images), most),
        "train_read": 0 if train is None else min(len(train), most),
        "in_training": sorted(set(leaked))[:10],
        "in_training_count": len(set(leaked)),
        "nearly_in_training": [] if train is None else _near(images, train, most),
    }


def _near(images: Sequence, train: Sequence, most: int) -> list[int]:
    """Indices of test images that are a training image but for brightness, contrast and a trace of noise.

    Of each the training image whose thumbnail (8 x 8) correlates best is compared at full size. Shifted, flipped and
    cropped copies are not found. 20,000 times 20,000 images take some seconds.
    """

    def standardised(pixels: Tensor) -> Tensor:
        centred = pixels.flatten(1) - pixels.flatten(1).mean(dim=1, keepdim=True)
        return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6)

    def thumbnails(source: Sequence) -> Tensor:
        small = [functional.adaptive_avg_pool2d(source[place][0], 8) for place in range(min(len(source), most))]
        return standardised(torch.stack(small))

    if not len(images) or not len(train):
        return []
    known, found = thumbnails(train), []
    for places in torch.arange(min(len(images), most)).split(500):
        few = thumbnails([images[place] for place in places.tolist()])
        for place, twin in zip(places.tolist(), (few @ known.T).argmax(dim=1).tolist(), strict=True):
            pair = standardised(torch.stack([images[place][0], train[twin][0]]))
            if float(pair[0] @ pair[1]) > NEAR:
                found.append(int(images[place][2]))
    return found


def _logits(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module(images).float()


def _rise(module: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """The margin in favour of a wrong class, float64 [B]."""
    return margin(_logits(module, points), labels).double()


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """As most attacks have it, rounding included; that of s2snet.attacks goes on where this one is 0."""
    return functional.cross_entropy(logits, labels, reduction="none")


def _gradient(module: nn.Module, points: Tensor, labels: Tensor, loss: Callable = margin) -> Tensor | None:
    """Of the loss, like `points`; None where none reaches them."""
    return _sloped(lambda x: loss(module(x), labels), points)[1]


def noised(images: Tensor, eps: float, draw: torch.Generator, corners: bool = False) -> Tensor:
    """The images at random points of the linf ball, or at random corners of it; cut to [0, 1]."""
    shift = 2 * torch.rand(images.shape, generator=draw) - 1
    return (images + eps * (shift.sign() if corners else shift).to(images)).clamp(0, 1)


def _relative(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest entry; infinite where one is NaN and the other not."""
    if not torch.equal(one.isnan(), other.isnan()):
        return float("inf")
    one, other = one.nan_to_num(), other.nan_to_num()
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-30))


def _share(found: Tensor) -> float:
    return float(found.double().mean()) if len(found) else 0.0


def _digest(tensor: Tensor) -> str:
    return hashlib.blake2b(
        tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes(), digest_size=16
    ).hexdigest()
