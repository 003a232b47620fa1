"""Logistic regression, where the worst case is known: training on FGSM examples is training on a closed form.

Labels are +1 and -1, the loss of an example is softplus(-y (w x + b)), and the worst perturbation of size eps makes it
softplus(eps |w|_1 - y (w x + b)) (arXiv 1412.6572, section 5). The paper prints softplus(y (eps |w|_1 - w x - b)),
which says the same for y = +1 only. All in float64.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOSSES = ("clean", "fgsm", "l1")  # that `descend` knows


def clean(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor) -> Tensor:
    """softplus(-y (w x + b)) of images [B, n] with signs +-1 [B]."""
    return softplus(-signs * (images @ weight + bias))


def closed_form(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> Tensor:
    """The loss of each image at its worst perturbation of size eps (Linf): softplus(eps |w|_1 - y (w x + b))."""
    return softplus(eps * weight.abs().sum() - signs * (images @ weight + bias))


def as_printed(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> Tensor:
    """softplus(y (eps |w|_1 - w x - b)), as the paper has it."""
    return softplus(signs * (eps * weight.abs().sum() - images @ weight - bias))


def by_fgsm(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> Tensor:
    """The loss at images + eps sign(gradient), the gradient taken by autograd; none passes through the sign."""
    x = images.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(clean(weight, bias, x, signs).sum(), x)
    return clean(weight, bias, images + eps * gradient.sign(), signs)


def descend(
    images: Tensor, signs: Tensor, loss: str, eps: float, epochs: int, seed: int, lr: float = 0.1, batch: int = 100
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """SGD from weights 0; yields (step, places of the batch, weight, bias) before each step and once after the last.

    `loss`: clean; fgsm; or l1, which is clean + eps |w|_1, the decay that the closed form is compared with.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss={loss}: allowed are {', '.join(LOSSES)}")
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(images.shape[1], dtype=torch.float64, device=images.device, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, device=images.device, requires_grad=True)
    step, places = 0, torch.arange(0)
    for _ in range(epochs):
        for places in torch.randperm(len(signs), generator=generator).split(batch):
            yield step, places, weight.detach().clone(), bias.detach().clone()
            given = weight, bias, images[places], signs[places]
            value = (by_fgsm(*given, eps) if loss == "fgsm" else clean(*given)).mean()
            value = value + eps * weight.abs().sum() if loss == "l1" else value
            gradients = torch.autograd.grad(value, (weight, bias))
            with torch.no_grad():
                for parameter, gradient in zip((weight, bias), gradients, strict=True):
                    parameter.sub_(lr * gradient)
            step += 1
    yield step, places, weight.detach().clone(), bias.detach().clone()


def differences(weight: Tensor, bias: Tensor, images: Tensor, signs: Tensor, eps: float) -> dict[str, float]:
    """How far the loss and its gradient by FGSM are from the closed form's, and the loss from the printed form's.

    The largest absolute differences: of losses over the images, of gradients (of the mean loss) over the parameters;
    of the printed form by sign, NaN where there is no such image.
    """
    parameters = [weight.detach().requires_grad_(True), bias.detach().requires_grad_(True)]
    forms = [form(*parameters, images, signs, eps) for form in (by_fgsm, closed_form)]
    gradients = [torch.autograd.grad(form.mean(), parameters) for form in forms]
    apart = [(a - b).abs().max().item() for a, b in zip(*gradients, strict=True)]
    printed = (as_printed(weight, bias, images, signs, eps) - forms[0].detach()).abs()
    return {
        "loss": (forms[0] - forms[1]).abs().max().item(),
        "gradient": max(apart),
        **{
            f"printed_{name}": printed[signs == sign].max().item() if (signs == sign).any() else float("nan")
            for name, sign in (("plus", 1), ("minus", -1))
        },
    }
