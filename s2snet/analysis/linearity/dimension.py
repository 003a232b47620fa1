"""How much a perturbation of fixed size can do to a linear model's answer, over the number of pixels.

w (x + eta) = w x + w eta, and the best eta of size eps gives eps |w|_1 = eps m n for n pixels of mean absolute weight
m: linear in n at fixed m (arXiv 1412.6572, section 3). Here the models are trained, on the same images at several
sizes, so m is whatever training makes of it.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional


def resized(images: Tensor, scale: float) -> Tensor:
    """Images [n, C, H, W] at `scale` times the side; averaged down, bilinear up."""
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    if scale <= 1:
        return functional.interpolate(images, size=size, mode="area")
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def growth(images: Tensor, signs: Tensor, eps: float) -> dict[str, float]:
    """What eps does to a logistic regression (L2, C = 1) of images with signs +-1, at worst and by chance.

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


def slope(pixels: list[float], values: list[float]) -> float:
    """The slope of log value over log pixels by least squares: the power with which a value grows."""
    return float(np.polyfit(np.log(pixels), np.log(values), 1)[0])
