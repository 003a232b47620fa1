"""Attack image classifiers: one pure function per file, depending only on torch and a callable model.

    adversarial = pgd(model, images, labels, eps=8 / 255, norm="linf", steps=40)

Every attack in ATTACKS takes these arguments; its own docstring describes its other options.

Args:
    model: Maps images to logits [B, K] with K > 1.
    images: float32 or float64 [B, ...] of rank 2 to 4, values in [0, 1]. B may be 0.
    labels: int64 [B], the true classes.
    eps: Radius of the ball in pixel units, on the [0, 1] scale. Minimal attacks take none.
    norm: One of the attack's `.norms`.
    loss: Name of a loss in LOSSES, which the attack maximises.
    draws: Number of passes that each loss and gradient is averaged over, for models with random outputs.
    noise: Source of random numbers, drawn per image, never from a generator shared by the batch.
    targets: int64 [B], the classes to reach. None for an untargeted attack.
    leave_early: Stop each image at its first fooling iterate. Valid only if this model alone judges the images and is
        deterministic.
    passes: Filled with the number of forward and backward passes per image.

Returns:
    Adversarial images with the shape, dtype and device of `images`, inside the ball and [0, 1] exactly, as checked in
    float64. Budget attacks return, among all iterates including the last, the fooling one with the highest loss, or
    the one with the highest loss if none fools. Minimal attacks return the nearest fooling image, or the clean image
    if none fools.

Raises:
    ValueError: If an argument is invalid.

The model is left unchanged, also after an exception: modes, requires_grad, .grad, buffers and random states. It is
attacked in its current modes; attacks do not call `.eval()`.

Attributes of each attack: `.version` (incremented if its results change), `.norms` (supported norms), `.minimal`
(False: finds the best image within `eps`; True: finds the smallest fooling perturbation), `.answers_only` (uses no
gradients) and `.random` (draws random numbers whatever its options).
"""

from s2snet.attacks._guard import untouched
from s2snet.attacks.apgd import apgd
from s2snet.attacks.bim import bim
from s2snet.attacks.cw import cw
from s2snet.attacks.ddn import ddn
from s2snet.attacks.deepfool import deepfool
from s2snet.attacks.fgsm import fgsm
from s2snet.attacks.fmn import fmn
from s2snet.attacks.gradients import Passes
from s2snet.attacks.lbfgs import lbfgs
from s2snet.attacks.least_likely import least_likely
from s2snet.attacks.losses import LOSSES
from s2snet.attacks.mim import mim
from s2snet.attacks.nfgsm import nfgsm
from s2snet.attacks.noise import Noise
from s2snet.attacks.pgd import pgd
from s2snet.attacks.square import square
from s2snet.attacks.uap import uap

ATTACKS = {
    "fgsm": fgsm,
    "bim": bim,
    "least_likely": least_likely,
    "mim": mim,
    "pgd": pgd,
    "apgd": apgd,
    "square": square,
    "deepfool": deepfool,
    "cw": cw,
    "lbfgs": lbfgs,
    "ddn": ddn,
    "fmn": fmn,
}

# Attacks that fit one perturbation for all images to training images. Their signature differs from the one above.
UNIVERSAL = {"uap": uap}

# Attacks for training only: their images may leave the ball, so they never evaluate a defence.
TRAINING = {"nfgsm": nfgsm}

# Common configurations of an attack with a name of their own: (attack, options).
VARIANTS = {
    "apgd_margin": ("apgd", {"loss": "margin"}),
    "apgd_t": ("apgd", {"loss": "dlr", "target_classes": 9}),
}

__all__ = [
    "ATTACKS",
    "LOSSES",
    "TRAINING",
    "UNIVERSAL",
    "VARIANTS",
    "Noise",
    "Passes",
    "untouched",
    *ATTACKS,
    *TRAINING,
    *UNIVERSAL,
]
