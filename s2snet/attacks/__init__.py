"""Attacks: pure functions, one a file, that need nothing but torch and a callable from images to logits.

    adversarial = pgd(model, images, labels, eps=8 / 255, norm="linf", steps=40)

The contract that all of them keep (tests/attacks/ runs every entry of ATTACKS through it):

- images float32 [B, ...] of rank 2 to 4 in [0, 1], labels int64 [B]; the result has the same shape, type and
  device; B may be 0.
- the result lies in the ball and in [0, 1] exactly, in float64 arithmetic.
- the module is afterwards as it was, also after an exception: modes, requires_grad, .grad, buffers, random
  state.
  It is attacked in the modes it is in: an attack switches nothing to eval and no dropout off.
- of all iterates, the last one included, the fooling one of highest loss comes back; if none fools, the one of
  highest loss. A minimal attack gives the nearest fooling one, and where none fools the clean image.
- random numbers are drawn per image from `noise`, never from a generator shared by the batch.
- with `leave_early` an image stops at its first fooling iterate: sound only where this very module is the
  only judge and deterministic.

Every attack carries `.version`, raised when its results change, `.norms`, the norms it knows, and `.minimal`:
False for the best within `eps`, True for the smallest perturbation that fools (these take no `eps`). `.answers_only`
marks one that takes no gradients, `.random` one that draws random numbers whatever its options.
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

# Attacks that make one perturbation for all images, from training images: the contract above is not theirs.
UNIVERSAL = {"uap": uap}

# Usual forms of an attack that go by a name of their own, with the options that make them.
VARIANTS = {
    "apgd_margin": ("apgd", {"loss": "margin"}),
    "apgd_t": ("apgd", {"loss": "dlr", "target_classes": 9}),
}

__all__ = ["ATTACKS", "LOSSES", "UNIVERSAL", "VARIANTS", "Noise", "Passes", "untouched", *ATTACKS, *UNIVERSAL]
