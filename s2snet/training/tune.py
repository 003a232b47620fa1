"""Stage 2 on examples that move: attacked through the purifier, attacked on the bare classifier, or noisy.

The paper's stage 2 sees clean images only (finetune.py). A purifier holds in the white box if the attack of its
training passes through the purifier itself (`examples: adversarial`; JATP, arXiv 2106.05453, is the precedent).
`static` crafts on the bare classifier, as HGD did (arXiv 1712.02976), and shows what that is worth. `noise` trains a
denoiser for a smoothed classifier (arXiv 2003.01908), whose certificate `certify.py` computes.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.attacks import Noise
from s2snet.config.recipe import Stage2Recipe
from s2snet.models import Defended, freeze
from s2snet.threats import ROUTES
from s2snet.training.attacked import AttackedStage
from s2snet.training.classifier import accuracy
from s2snet.training.finetune import FinetuneDecoder
from s2snet.training.loaders import derived_seed
from s2snet.training.stage import Stage

Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # (logits, labels, teacher's logits, temperature) -> scalar


def cross_entropy(logits: Tensor, labels: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return functional.cross_entropy(logits / temperature, labels)


def kl(logits: Tensor, labels: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(f(x) || f(A(x'))), where the frozen classifier f on the clean image x is a teacher that stays put."""
    student, fixed = functional.log_softmax(logits / temperature, dim=1), functional.softmax(teacher / temperature, 1)
    return functional.kl_div(student, fixed, reduction="batchmean")


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "kl": kl}


class TunePurifier(AttackedStage):
    """loss(f(A(x'))) + clean_weight * loss(f(A(x))) for moving examples x' of x; A or its decoder learns, f is frozen.

    The frozen parts stay in eval mode whatever Lightning calls.
    """

    def __init__(self, autoencoder: nn.Module, classifier: nn.Module, recipe: Stage2Recipe, seed: int):
        super().__init__(recipe, seed)
        self.trained = autoencoder
        self.classifier = classifier
        self.loss = LOSSES[recipe.loss]
        self.train()

    def train(self, mode: bool = True) -> "TunePurifier":
        super().train(mode)
        freeze(self.classifier)
        if self.recipe.learns == "decoder":
            freeze(self.trained.encoder)
        return self

    def compiled(self) -> Iterable[nn.Module]:
        return [self.trained, self.classifier]

    def parameters_to_train(self) -> Iterable[nn.Parameter]:
        return (self.trained.decoder if self.recipe.learns == "decoder" else self.trained).parameters()

    def training_step(self, batch, batch_index) -> Tensor:
        images, labels, index = batch
        with torch.no_grad():
            teacher = self.classifier(images)
        if self.recipe.labels == "classifier":
            labels = teacher.argmax(dim=1)
        examples = self.examples(images, labels, index)
        loss = self.loss(self.classifier(self.trained(examples)), labels, teacher, self.recipe.temperature)
        if self.recipe.clean_weight:
            clean = self.loss(self.classifier(self.trained(images)), labels, teacher, self.recipe.temperature)
            loss = loss + self.recipe.clean_weight * clean
        self.log_loss(loss)
        return loss

    def examples(self, images: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Return what this step trains on in place of the clean images."""
        if self.recipe.examples != "noise":
            return self.attacked(images, labels, index)
        noise, rows = Noise(derived_seed(self.seed, self.global_step), index), torch.arange(len(images)).to(labels)
        return images + self.recipe.sigma * noise.normal(images, rows)  # not clipped, as in the smoothed classifier

    def source(self) -> nn.Module:
        """Return the bare classifier for static examples; else the defended module, differentiated by the route."""
        return self.classifier if self.recipe.examples == "static" and self.training else self.defended()

    def defended(self) -> nn.Module:
        """Return the defended module as the attacker differentiates it, by the recipe's route."""
        return ROUTES[self.recipe.route].build(Defended(self.trained, self.classifier), None)

    def measure(self, batch) -> dict[str, Tensor]:
        """Return cross-entropy and accuracy of the defended classifier on one batch of clean images.

        Images without labels (-1) count as right if the classifier answers as it does without the purifier.
        """
        images, labels, _ = batch
        with torch.no_grad():
            logits = self.classifier(self.trained(images))
            labels = self.labels_of(images, labels)
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}

    def labels_of(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the labels; for images without one (-1) the classifier's answer to the clean image."""
        if not (labels < 0).any():
            return labels
        with torch.no_grad():
            return torch.where(labels < 0, self.classifier(images).argmax(dim=1), labels)

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
        return "purified", self.trained(images)


def stage_two(autoencoder: nn.Module, classifier: nn.Module, recipe: Stage2Recipe, seed: int) -> Stage:
    """Return the Lightning module of stage 2: the paper's on clean examples, else the one for moving examples."""
    kind = TunePurifier if recipe.moves else FinetuneDecoder
    return kind(autoencoder, classifier, recipe, seed)
