"""Compare FGSM, BIM and PGD with foolbox and ART: CPU time and robust accuracy.

    python benchmarks/attacks.py [rounds]

Uses every third digits test image, the released undefended classifier and S2SNet, and one thread. Every library gets
the same images, radius, steps and step size. Each runs once as a warm-up; then the libraries alternate, and the ratio
ours / theirs is the median over the rounds. Robust accuracy is reported as well, so that a fast but wrong attack cannot
win. Our attacks run without early stopping, so all libraries make the same number of passes, except that ours make
one more forward pass to judge the last iterate. (tests/bench/ checks that the steps are the same, too.)
"""

import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import s2snet
from s2snet import attacks, data
from s2snet.models import Defended
from s2snet.store import paths

STEPS = {"fgsm": 1, "bim": 20, "pgd": 40}
RADII = (8 / 255, 25.5 / 255)
IMAGES = slice(0, 360, 3)
OUTPUT = Path("docs/results/benchmarks/attacks.csv")


def ours(name: str, model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    options = {} if name == "fgsm" else {"steps": STEPS[name], "step_size": 2.5 * eps / STEPS[name]}
    return lambda images, labels: attacks.ATTACKS[name](model, images, labels, eps=eps, **options)


def foolbox(name: str, model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    import foolbox as library

    wrapped = library.PyTorchModel(model, bounds=(0, 1), device="cpu")
    step = {"abs_stepsize": 2.5 * eps / STEPS[name], "steps": STEPS[name]}
    attack = {
        "fgsm": lambda: library.attacks.LinfFastGradientAttack(),
        "bim": lambda: library.attacks.LinfBasicIterativeAttack(random_start=False, **step),
        "pgd": lambda: library.attacks.LinfProjectedGradientDescentAttack(random_start=True, **step),
    }[name]()
    return lambda images, labels: attack.run(wrapped, images, labels, epsilon=eps)


def art(name: str, model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), input_shape=(1, 32, 32), nb_classes=10, clip_values=(0, 1), device_type="cpu"
    )
    step = {"eps": eps, "eps_step": 2.5 * eps / STEPS[name], "max_iter": STEPS[name], "verbose": False}
    attack = {
        "fgsm": lambda: FastGradientMethod(wrapped, eps=eps, batch_size=120),
        "bim": lambda: BasicIterativeMethod(wrapped, batch_size=120, **step),
        "pgd": lambda: ProjectedGradientDescentPyTorch(wrapped, batch_size=120, num_random_init=1, **step),
    }[name]()

    def run(images: Tensor, labels: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(labels, 10).float().numpy()
        return torch.from_numpy(attack.generate(images.numpy(), one_hot))

    return run


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    folder = paths.released() / "digits"
    classifier = s2snet.load(folder / "classifier-small_cnn.safetensors")
    purifier = s2snet.load(folder / "s2snet-segnet_small-small_cnn.safetensors")
    models = {"none": classifier, "s2snet": Defended(purifier, classifier).eval()}
    test = data.load("digits").test
    images, labels = test.images[IMAGES], test.labels[IMAGES]
    lines = []
    for defence, model in models.items():
        for name in STEPS:
            for eps in RADII:
                runners = {library.__name__: library(name, model, eps) for library in (ours, foolbox, art)}
                seconds: dict[str, list[float]] = {library: [] for library in runners}
                found = {}
                for turn in range(rounds + 1):
                    for library, run in runners.items():
                        started = time.process_time()
                        found[library] = run(images, labels)
                        if turn:  # the first round is the warm-up: imports, kernels, memory
                            seconds[library].append(time.process_time() - started)
                        model.eval()  # some libraries change the mode of the module
                for library in runners:
                    ratios = [a / b for a, b in zip(seconds["ours"], seconds[library], strict=True)]
                    lines.append(_line(defence, name, eps, library, seconds, ratios, found, model, images, labels))
                    print(" ".join(f"{value:>12}" for value in lines[-1].values()), flush=True)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    with open(OUTPUT, "w", newline="") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _line(defence, name, eps, library, seconds, ratios, found, model, images, labels) -> dict[str, object]:
    with torch.no_grad():
        right = (model(found[library]).argmax(dim=1) == labels).double().mean().item()
    return {
        "defence": defence,
        "attack": name,
        "eps": f"{eps * 255:g}/255",
        "library": library,
        "seconds": f"{statistics.median(seconds[library]):.3f}",
        "ours_over_theirs": f"{statistics.median(ratios):.3f}",
        "robust_accuracy": f"{right:.4f}",
        "images": len(images),
        "outside_ball": int(((found[library].double() - images.double()).abs() > eps).flatten(1).any(1).sum()),
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
