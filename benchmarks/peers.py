"""Wrap our attacks and those of other libraries in one signature: `run(images, labels, seed, **case)` -> images.

Each function imports its library when called and returns {attack name: run}; `case` has norm, eps and target_classes
as set by strength.py. All libraries get the same images, radius, steps, step size, loss and number of restarts;
options that a library does not expose stay at their defaults.
"""

import math
import sys
from collections.abc import Callable
from types import ModuleType

import numpy
import torch
from torch import Tensor, nn

BIM, MIM, PGD, APGD, MINIMAL, DEEPFOOL = 20, 20, 40, 100, 100, 50  # steps
CW = {"searches": 5, "steps": 100}
CLASSES = 10


def step(eps: float, steps: int) -> float:
    return 2.5 * eps / steps


def share(eps: float, steps: int) -> float:
    """Return the step size of the momentum iterative method (arXiv 1710.06081, algorithm 1)."""
    return eps / steps


def ours(model: nn.Module) -> dict[str, Callable]:
    from s2snet import attacks

    def budget(name: str, **options) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float, **case) -> Tensor:
            size = {"bim": step(eps, BIM), "pgd": step(eps, PGD), "mim": share(eps, MIM)}
            steps = {"step_size": size[name]} if name in size else {}
            if name in ("pgd", "apgd"):
                steps["noise"] = attacks.Noise(seed, range(first, first + len(images)))
            # the model is the only judge and deterministic: stopping early changes no verdict and saves hours
            return attacks.ATTACKS[name](
                model, images, labels, eps=eps, norm=norm, leave_early=True, **steps, **options, **case
            )

        return run

    def minimal(name: str, **options) -> Callable:
        return lambda images, labels, seed, first, norm: attacks.ATTACKS[name](
            model, images, labels, norm=norm, **options
        )

    return {
        "fgsm": budget("fgsm"),
        "bim": budget("bim", steps=BIM),
        "mim": budget("mim", steps=MIM),
        "pgd": budget("pgd", steps=PGD),
        "apgd-ce": budget("apgd", steps=APGD, loss="cross_entropy"),
        "apgd-dlr": budget("apgd", steps=APGD, loss="dlr"),
        "apgd-t": budget("apgd", steps=APGD, loss="dlr"),
        "deepfool": minimal("deepfool", steps=DEEPFOOL),
        "ddn": minimal("ddn", steps=MINIMAL),
        "fmn": minimal("fmn", steps=MINIMAL),
        "cw": minimal("cw", **CW),
    }


def foolbox(model: nn.Module) -> dict[str, Callable]:
    import foolbox as library

    known = library.attacks
    wrapped = library.PyTorchModel(model, bounds=(0, 1), device="cpu")

    def budget(
        linf: Callable, l2: Callable, steps: int = 0, l1: Callable | None = None, length: Callable = step, **options
    ) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float) -> Tensor:
            size = {"abs_stepsize": length(eps, steps), "steps": steps} if steps else {}
            attack = {"linf": linf, "l2": l2, "l1": l1}[norm](**size, **options)
            return attack.run(wrapped, images, labels, epsilon=eps)

        return run

    def minimal(linf: Callable | None, l2: Callable, **options) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str) -> Tensor:
            return (linf if norm == "linf" else l2)(**options)(wrapped, images, labels, epsilons=None)[0]

        return run

    return {
        "fgsm": budget(known.LinfFastGradientAttack, known.L2FastGradientAttack),
        "bim": budget(known.LinfBasicIterativeAttack, known.L2BasicIterativeAttack, BIM, random_start=False),
        "mim": budget(
            known.LinfMomentumIterativeFastGradientMethod,
            known.L2MomentumIterativeFastGradientMethod,
            MIM,
            length=share,
        ),
        "pgd": budget(
            known.LinfProjectedGradientDescentAttack,
            known.L2ProjectedGradientDescentAttack,
            PGD,
            known.SparseL1DescentAttack,
        ),
        "deepfool": minimal(known.LinfDeepFoolAttack, known.L2DeepFoolAttack, steps=DEEPFOOL),
        "ddn": minimal(None, known.DDNAttack, steps=MINIMAL),
        "fmn": minimal(known.LInfFMNAttack, known.L2FMNAttack, steps=MINIMAL),
        "cw": minimal(None, known.L2CarliniWagnerAttack, binary_search_steps=CW["searches"], steps=CW["steps"]),
    }


def art(model: nn.Module) -> dict[str, Callable]:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    def made(images: Tensor, labels: Tensor, attack: Callable, **options) -> Tensor:
        classifier = PyTorchClassifier(
            model,
            nn.CrossEntropyLoss(),
            input_shape=images.shape[1:],
            nb_classes=CLASSES,
            clip_values=(0, 1),
            device_type="cpu",
        )
        if attack is not evasion.FastGradientMethod:
            options["verbose"] = False
        one_hot = nn.functional.one_hot(labels, CLASSES).float().numpy()
        found = attack(classifier, batch_size=len(images), **options).generate(images.numpy(), one_hot)
        return torch.from_numpy(found)

    def budget(attack: Callable, steps: int = 0, length: Callable = step, **options) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float) -> Tensor:
            size = {"eps_step": length(eps, steps), "max_iter": steps} if steps else {}
            if "nb_random_init" in options:  # Auto-PGD chooses its own steps, from 2 eps
                size["eps_step"] = 2 * eps
            size["norm"] = {"linf": numpy.inf, "l2": 2, "l1": 1}[norm]
            return made(images, labels, attack, eps=eps, **size, **options)

        return run

    def minimal(attack: Callable, **options) -> Callable:
        return lambda images, labels, seed, first, norm: made(images, labels, attack, **options)

    auto, pgd = evasion.AutoProjectedGradientDescent, evasion.ProjectedGradientDescentPyTorch
    return {
        "fgsm": budget(evasion.FastGradientMethod),
        "bim": budget(pgd, BIM, num_random_init=0),
        "mim": budget(evasion.MomentumIterativeMethod, MIM, share),
        "pgd": budget(pgd, PGD, num_random_init=1),
        "apgd-ce": budget(auto, APGD, nb_random_init=1, loss_type="cross_entropy"),
        "apgd-dlr": budget(auto, APGD, nb_random_init=1, loss_type="difference_logits_ratio"),
        "deepfool": minimal(evasion.DeepFool, max_iter=DEEPFOOL, epsilon=0.02, nb_grads=CLASSES),
        "cw": minimal(evasion.CarliniL2Method, binary_search_steps=CW["searches"], max_iter=CW["steps"]),
    }


class Contiguous(torch.autograd.Function):
    """Identity with a contiguous gradient: one library calls `.view` on it."""

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


class WithContiguousGradients(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(Contiguous.apply(images))


def torchattacks(model: nn.Module) -> dict[str, Callable]:
    import torchattacks as library

    model = WithContiguousGradients(model)

    def pgd(steps: int, random_start: bool) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float) -> Tensor:
            attack = library.PGD if norm == "linf" else library.PGDL2
            return attack(model, eps=eps, alpha=step(eps, steps), steps=steps, random_start=random_start)(
                images, labels
            )

        return run

    def fgsm(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float) -> Tensor:
        return library.FGSM(model, eps=eps)(images, labels)

    def mim(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float) -> Tensor:
        return library.MIFGSM(model, eps=eps, alpha=share(eps, MIM), steps=MIM)(images, labels)

    def minimal(attack: Callable, **options) -> Callable:
        return lambda images, labels, seed, first, norm: attack(model, **options)(images, labels)

    return {
        "fgsm": fgsm,
        "mim": mim,
        "bim": pgd(BIM, random_start=False),
        "pgd": pgd(PGD, random_start=True),
        "deepfool": minimal(library.DeepFool, steps=DEEPFOOL),
        # has no search over c: all steps use one c
        "cw": minimal(library.CW, steps=CW["searches"] * CW["steps"]),
    }


def autoattack(model: nn.Module) -> dict[str, Callable]:
    from autoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    def budget(attack: Callable, **options) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float, **case) -> Tensor:
            if case:
                case = {"n_target_classes": case["target_classes"]}
            kind = "Linf" if norm == "linf" else "L2"
            made = attack(model, n_iter=APGD, norm=kind, eps=eps, seed=seed + first, device="cpu", **options, **case)
            return made.perturb(images, labels)

        return run

    return {
        "apgd-ce": budget(APGDAttack, loss="ce"),
        "apgd-dlr": budget(APGDAttack, loss="dlr"),
        "apgd-t": budget(APGDAttack_targeted),
    }


def adv_lib(model: nn.Module) -> dict[str, Callable]:
    from s2snet import torchvision_cpu

    torchvision_cpu.patch()  # it imports torchvision
    # its plots want visdom, which nothing here uses
    sys.modules.setdefault("visdom", ModuleType("visdom")).Visdom = object
    from adv_lib import attacks

    power = {"linf": math.inf, "l2": 2}

    def pgd(steps: int, random_init: bool) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float) -> Tensor:
            size = step(eps, steps)
            return attacks.pgd_linf(
                model, images, labels, eps, steps=steps, random_init=random_init, absolute_step_size=size
            )

        return run

    def auto(attack: Callable, **options) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str, eps: float, **case) -> Tensor:
            if case:
                case = {"num_targets": case["target_classes"]}
            return attack(model, images, labels, eps, power[norm], n_iter=APGD, **options, **case)

        return run

    def minimal(attack: Callable, normed: bool = True, **options) -> Callable:
        def run(images: Tensor, labels: Tensor, seed: int, first: int, norm: str) -> Tensor:
            return attack(model, images, labels, **({"norm": power[norm]} if normed else {}), **options)

        return run

    search = {"binary_search_steps": CW["searches"], "max_iterations": CW["steps"]}
    return {
        "bim": pgd(BIM, random_init=False),
        "pgd": pgd(PGD, random_init=True),
        "apgd-ce": auto(attacks.apgd, loss_function="ce"),
        "apgd-dlr": auto(attacks.apgd, loss_function="dlr"),
        "apgd-t": auto(attacks.apgd_targeted),
        "deepfool": minimal(attacks.df, steps=DEEPFOOL),
        # its default rounds to 8 bits; the others do not
        "ddn": minimal(attacks.ddn, normed=False, steps=MINIMAL, levels=None),
        "fmn": minimal(attacks.fmn, steps=MINIMAL),
        "cw": minimal(attacks.carlini_wagner_l2, normed=False, **search),
    }


# norms that an attack of a library lacks although another norm is measured; l1 is measured for PGD only
LACKS = {
    ("torchattacks", "fgsm", "l2"),
    ("torchattacks", "mim", "l2"),
    ("torchattacks", "pgd", "l1"),
    ("adv_lib", "pgd", "l1"),
    ("torchattacks", "deepfool", "linf"),
    ("art", "deepfool", "linf"),
    ("adv_lib", "bim", "l2"),
    ("adv_lib", "pgd", "l2"),
}
LIBRARIES = {
    "ours": ours,
    "foolbox": foolbox,
    "art": art,
    "torchattacks": torchattacks,
    "autoattack": autoattack,
    "adv_lib": adv_lib,
}
