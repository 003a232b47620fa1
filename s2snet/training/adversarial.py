"""Train the baseline, stage `adversarial`, on FGSM examples (Goodfellow et al., arXiv 1412.6572, section 6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.attacks import fgsm
from s2snet.config.recipe import AdversarialRecipe
from s2snet.training.classifier import accuracy
from s2snet.training.stage import Stage


class TrainAdversarial(Stage):
    """alpha CE(f(x), y) + (1 - alpha) CE(f(x + eps sign grad), y), with examples against the current weights.

    The classifier is in eval mode while the examples are computed, so that they use no dropout and leave BatchNorm's
    statistics alone. No gradient passes through the sign. With eps = 0 both halves are ordinary training.
    """

    def __init__(self, classifier: nn.Module, recipe: AdversarialRecipe, seed: int):
        super().__init__(recipe, seed)
        self.trained = classifier

    def attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the FGSM examples of these images against the current weights."""
        self.trained.eval()
        adversarial = fgsm(self.trained, images, labels, eps=self.recipe.eps)
        self.train(self.training)
        return adversarial

    def training_step(self, batch, batch_index) -> Tensor:
        images, labels, _ = batch
        alpha = self.recipe.alpha
        clean = functional.cross_entropy(self.trained(images), labels)
        adversarial = functional.cross_entropy(self.trained(self.attacked(images, labels)), labels)
        loss = alpha * clean + (1 - alpha) * adversarial
        self.log_loss(loss)
        return loss

    def measure(self, batch) -> dict[str, Tensor]:
        """Return clean accuracy and error on FGSM examples (the paper's stopping rule) of one validation batch."""
        images, labels, _ = batch
        adversarial = self.attacked(images, labels)
        with torch.no_grad():
            return {
                "accuracy": accuracy(self.trained(images), labels),
                "adversarial_error": 1 - accuracy(self.trained(adversarial), labels),
            }

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
        return "FGSM", self.attacked(images, labels)
