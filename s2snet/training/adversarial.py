"""Stage `adversarial`, the baseline: train the classifier itself on attacked images.

By default half clean and half FGSM (Goodfellow et al., arXiv 1412.6572, section 6); with the recipe
`adversarial_fast` single steps from noise, averaged weights and a watch, for a fair comparison with tuned purifiers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.config.recipe import AdversarialRecipe
from s2snet.training.attacked import AttackedStage
from s2snet.training.classifier import accuracy


class TrainAdversarial(AttackedStage):
    """alpha CE(f(x), y) + (1 - alpha) CE(f(x'), y), examples x' crafted against the current weights.

    With `trades` the loss is CE(f(x), y) + trades KL(f(x) || f(x')) (Zhang et al., arXiv 1901.08573); the inner attack
    ascends the cross-entropy here, not the KL divergence.
    """

    def __init__(self, classifier: nn.Module, recipe: AdversarialRecipe, seed: int):
        super().__init__(recipe, seed)
        self.trained = classifier

    def source(self) -> nn.Module:
        return self.trained

    def training_step(self, batch, batch_index) -> Tensor:
        images, labels, index = batch
        clean = self.trained(images)
        attacked = self.trained(self.attacked(images, labels, index))
        loss = self.loss(clean, attacked, labels)
        self.log_loss(loss)
        return loss

    def loss(self, clean: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss of logits on clean and attacked images."""
        truth = functional.cross_entropy(clean, labels)
        if self.recipe.trades is not None:
            student, teacher = functional.log_softmax(attacked, dim=1), functional.softmax(clean, dim=1)
            return truth + self.recipe.trades * functional.kl_div(student, teacher, reduction="batchmean")
        return self.recipe.alpha * truth + (1 - self.recipe.alpha) * functional.cross_entropy(attacked, labels)

    def measure(self, batch) -> dict[str, Tensor]:
        """Return clean accuracy and the error under the inner attack on one batch: the paper's stopping rule."""
        images, labels, index = batch
        adversarial = self.attacked(images, labels, index)
        with torch.no_grad():
            return {
                "accuracy": accuracy(self.trained(images), labels),
                "adversarial_error": 1 - accuracy(self.trained(adversarial), labels),
            }

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
        return self.recipe.attack.upper(), self.attacked(images, labels, torch.arange(len(images)))
