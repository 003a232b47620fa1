"""Train stage `classifier`: the classifier that the other stages put a purifier in front of."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_accuracy

from s2snet.config.recipe import ClassifierRecipe
from s2snet.training.stage import Stage


class TrainClassifier(Stage):
    """The cross-entropy of the classifier, with optional label smoothing."""

    def __init__(self, classifier: nn.Module, recipe: ClassifierRecipe, seed: int):
        super().__init__(recipe, seed)
        self.trained = classifier

    def training_step(self, batch, batch_index) -> Tensor:
        images, labels, _ = batch
        loss = functional.cross_entropy(self.trained(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.log_loss(loss)
        return loss

    def measure(self, batch) -> dict[str, Tensor]:
        """Return cross-entropy and accuracy of one validation batch."""
        images, labels, _ = batch
        with torch.no_grad():
            logits = self.trained(images)
        return {
            "loss": functional.cross_entropy(logits, labels),
            "accuracy": accuracy(logits, labels),
        }


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of correct predictions in a batch."""
    return multiclass_accuracy(logits, labels, num_classes=logits.shape[1], average="micro")
