"""Measures of the linear explanation: the sign step, scores along it, growth with dimension, logistic regression.

`s2snet.attacks.fgsm` keeps images in [0, 1], as an attack on images must. The paper states no clipping, so numbers that
are compared with its own come from `sign_step`. After `.clamp(0, 1)` the result is that of `fgsm`, which a test checks.

In logistic regression the worst case is known: training on FGSM examples is training on a closed form. Labels are +1
and -1, the loss of an example is softplus(-y (w x + b)), and the worst perturbation of size eps makes it
softplus(eps |w|_1 - y (w x + b)) (arXiv 1412.6572, section 5). The paper prints softplus(y (eps |w|_1 - w x - b)),
which is the same for y = +1 only. All of it is in float64.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import softplus

from s2snet.analysis.batched import BATCH, logits
from s2snet.analysis.linearity.nets import Net

LOGISTIC_LOSSES = ("clean", "fgsm", "l1")  # of `train_logistic`


def direction(cost: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, batch: int = BATCH) -> Tensor:
    """Return the sign of the gradient of `cost(images, labels)` [B] to the images, like images; sign(0) is 0.

    The network stays in its mode. One forward and one backward each.
    """
    signs = []
    for part, label in zip(images.split(batch), labels.split(batch), strict=True):
        x = part.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(cost(x, label).sum(), x)
        signs.append(gradient.sign())
    return torch.cat(signs)


def sign_step(net: Net, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Return images + eps sign(gradient of the net's own cost), not clipped (arXiv 1412.6572, section 4)."""
    return images.detach() + eps * direction(net.cost, images, labels)


@torch.no_grad()
def probabilities(net: Net, images: Tensor, batch: int = BATCH) -> Tensor:
    """Return the net's probabilities [n, K]. One forward each."""
    return torch.cat([net.probabilities(part) for part in images.split(batch)])


def errors(net: Net, images: Tensor, labels: Tensor) -> Tensor:
    """Return Bool [n]: whether the most probable class is not the label."""
    return probabilities(net, images).argmax(dim=1) != labels


def scores_along(net: Net, images: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
    """Return the scores [n, G, K] at image + offset x sign(gradient of the cost at the image), for G offsets.

    The images leave the range of pixels and are not clipped (figure 4). One backward and 1 + G forwards an image.
    """
    way = direction(net.cost, images, labels)
    return torch.stack([logits(net, images + offset * way) for offset in offsets.tolist()], dim=1)


def unexplained(curves: np.ndarray, pieces: int) -> np.ndarray:
    """Return the share of each curve's variance [m] that its best fit of 1, 2, ... `pieces` lines leaves: [m, pieces].

    `curves` [m, G] at equal distances. The ends of the pieces are chosen for the least squared error, exactly, by
    dynamic programming; pieces need not meet. 0 is piecewise linear. A parabola keeps 1 / k^4 at k pieces, and a
    constant curve 0. Needs m G^2 numbers of memory.
    """
    curves = np.asarray(curves, dtype=np.float64)
    curves = curves - curves.mean(axis=1, keepdims=True)
    total = np.square(curves).sum(axis=1)
    curves = curves / np.sqrt(np.where(total > 0, total, 1))[:, None]
    costs = _segment_costs(curves)
    best = costs[:, 0, :]  # of the points up to each, with one piece
    left = [best[:, -1]]
    for _ in range(1, pieces):
        # one more piece, beginning after any earlier point
        through = best[:, :-1, None] + costs[:, 1:, :]
        best = np.minimum(best, through.min(axis=1))
        left.append(best[:, -1])
    return np.stack(left, axis=1)


def _segment_costs(curves: np.ndarray) -> np.ndarray:
    """Return [m, i, j]: the squared error of the best line through the points i to j; infinite for j < i."""
    count = curves.shape[1]
    place = np.linspace(-1, 1, count)
    first, last = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    points = np.where(last >= first, last - first + 1, 1)

    def between(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros_like(values[..., :1]), np.cumsum(values, axis=-1)], axis=-1)
        return sums[..., last + 1] - sums[..., first]

    mean_x, mean_y = between(place) / points, between(curves) / points
    spread = between(place**2) - points * mean_x**2
    product = between(place * curves) - points * mean_x * mean_y
    slope_part = np.where(points > 1, product**2 / np.where(spread > 0, spread, 1), 0)
    error = between(curves**2) - points * mean_y**2 - slope_part
    return np.where(last >= first, np.where(points > 2, error.clip(min=0), 0), np.inf)


def stretches(right: np.ndarray, predictions: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Return how the prediction changes along the line, per image [n], from Bool and int64 [n, G] at G offsets.

    right_around_0: width of the unbroken stretch with the right class around 0, in offsets; 0 if it is wrong there.
    longest_wrong: width of the longest unbroken stretch with one and the same wrong class.
    right_up, right_down: shares of the points with offset >= 1, and <= -1, that are right.
    """
    zero, step = int(np.abs(offsets).argmin()), offsets[1] - offsets[0]
    around, longest = [], []
    for line, classes in zip(right, predictions, strict=True):
        ends = np.flatnonzero(np.diff(classes)) + 1
        runs = np.split(np.arange(len(classes)), ends)
        widths = [(run[-1] - run[0]) * step for run in runs]
        around.append(next(w for run, w in zip(runs, widths, strict=True) if zero in run) if line[zero] else 0.0)
        longest.append(max((w for run, w in zip(runs, widths, strict=True) if not line[run[0]]), default=0.0))
    return {
        "right_around_0": np.array(around),
        "longest_wrong": np.array(longest),
        "right_up": right[:, offsets >= 1].mean(axis=1),
        "right_down": right[:, offsets <= -1].mean(axis=1),
    }


def resize(images: Tensor, scale: float) -> Tensor:
    """Return images [n, C, H, W] at `scale` times the side, averaged down or bilinear up."""
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    if scale <= 1:
        return functional.interpolate(images, size=size, mode="area")
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def growth(images: Tensor, signs: Tensor, eps: float) -> dict[str, float]:
    """Return how much eps changes a logistic regression (L2, C = 1) of images with signs +-1, at worst and by chance.

    w (x + eta) = w x + w eta, and the best eta of size eps gives eps |w|_1 = eps m n for n pixels of mean absolute
    weight m: linear in n at fixed m (arXiv 1412.6572, section 3). Here models are trained, so m follows from training.

    pixels: n. worst: eps |w|_1. random: eps |w|_2, the deviation of w eta for random signs. weight: the mean |w|.
    margin: the median of |w x + b|, which the change has to overcome.
    """
    from sklearn.linear_model import LogisticRegression

    flat = images.flatten(1).cpu().numpy().astype(np.float64)
    fitted = LogisticRegression(C=1.0, max_iter=5000, tol=1e-3).fit(flat, signs.cpu().numpy())
    weight = fitted.coef_[0]
    return {
        "pixels": len(weight),
        "worst": eps * float(np.abs(weight).sum()),
        "random": eps * float(np.linalg.norm(weight)),
        "weight": float(np.abs(weight).mean()),
        "margin": float(np.median(np.abs(fitted.decision_function(flat)))),
    }


def clean_loss(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor) -> Tensor:
    """Return softplus(-y (w x + b)) [B] of images [B, n] with signs +-1 [B]."""
    return softplus(-signs * (images @ weight + bias))


def closed_form_loss(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> Tensor:
    """Return the loss of each image at its worst Linf perturbation of size eps: softplus(eps |w|_1 - y (w x + b))."""
    return softplus(eps * weight.abs().sum() - signs * (images @ weight + bias))


def printed_loss(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> Tensor:
    """Return softplus(y (eps |w|_1 - w x - b)), as the paper prints it."""
    return softplus(signs * (eps * weight.abs().sum() - images @ weight - bias))


def fgsm_loss(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> Tensor:
    """Return the loss at images + eps sign(gradient), the gradient taken by autograd; none passes through the sign."""
    x = images.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(clean_loss(weight, bias, x, signs).sum(), x)
    return clean_loss(weight, bias, images + eps * gradient.sign(), signs)


def train_logistic(
    images: Tensor, signs: Tensor, loss: str, eps: float, epochs: int, seed: int, lr: float = 0.1, batch: int = 100
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Run SGD from zero; yield (step, indices of the batch, weight, bias) before each step and once after the last.

    `loss` is clean, fgsm, or l1: clean + eps |w|_1, the decay that the closed form is compared with.
    """
    if loss not in LOGISTIC_LOSSES:
        raise ValueError(f"loss={loss}: allowed are {', '.join(LOGISTIC_LOSSES)}")
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(images.shape[1], dtype=torch.float64, device=images.device, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, device=images.device, requires_grad=True)
    step, places = 0, torch.arange(0)
    for _ in range(epochs):
        for places in torch.randperm(len(signs), generator=generator).split(batch):
            yield step, places, weight.detach().clone(), bias.detach().clone()
            given = weight, bias, images[places], signs[places]
            value = (fgsm_loss(*given, eps) if loss == "fgsm" else clean_loss(*given)).mean()
            value = value + eps * weight.abs().sum() if loss == "l1" else value
            gradients = torch.autograd.grad(value, (weight, bias))
            with torch.no_grad():
                for parameter, gradient in zip((weight, bias), gradients, strict=True):
                    parameter.sub_(lr * gradient)
            step += 1
    yield step, places, weight.detach().clone(), bias.detach().clone()


def differences(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> dict[str, float]:
    """Return how much the loss by FGSM and its gradient differ from the closed form's and from the printed form's.

    They are the largest absolute differences: of losses over the images, of gradients of the mean loss over the
    parameters; of the printed form by sign, NaN if no image has that sign.
    """
    parameters = [weight.detach().requires_grad_(True), bias.detach().requires_grad_(True)]
    forms = [form(*parameters, images, signs, eps) for form in (fgsm_loss, closed_form_loss)]
    gradients = [torch.autograd.grad(form.mean(), parameters) for form in forms]
    gaps = [(a - b).abs().max().item() for a, b in zip(*gradients, strict=True)]
    printed = (printed_loss(weight, bias, images, signs, eps) - forms[0].detach()).abs()
    return {
        "loss": (forms[0] - forms[1]).abs().max().item(),
        "gradient": max(gaps),
        **{
            f"printed_{name}": printed[signs == sign].max().item() if (signs == sign).any() else float("nan")
            for name, sign in (("plus", 1), ("minus", -1))
        },
    }
