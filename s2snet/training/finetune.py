"""Train stage 2: the decoder learns, through the frozen classifier, what the classifier needs (arXiv 1803.07994)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.config.recipe import Stage2Recipe
from s2snet.models import freeze
from s2snet.training.classifier import accuracy
from s2snet.training.codes import Codes
from s2snet.training.stage import Stage


class FinetuneDecoder(Stage):
    """Cross-entropy of the frozen classifier f on D(E(x)); only D learns, E runs without a graph.

    As in the authors' release, the decoder's BatchNorm is in training mode. Encoder and classifier stay in eval mode
    whatever Lightning calls, so that not even their running statistics change. The autoencoder has `encode`, `decode`,
    `encoder` and `decoder` (s2snet/models/__init__.py).

    recipe: `labels` is `truth`, or `classifier` for f's own predictions on x, which needs no labels;
    `reconstruction_weight` adds the squared error per pixel with this weight (0 in the paper);
    `cache` memory or disk keeps the codes over the epochs (codes.py), none computes them in each epoch.
    """

    def __init__(self, autoencoder: nn.Module, classifier: nn.Module, recipe: Stage2Recipe, seed: int):
        super().__init__(recipe, seed)
        self.trained = autoencoder
        self.classifier = classifier
        self.codes: Codes | None = None  # the loop sets it if recipe.keeps_codes
        self.train()

    def train(self, mode: bool = True) -> "FinetuneDecoder":
        super().train(mode)
        freeze(self.trained.encoder)
        freeze(self.classifier)
        return self

    def compiled(self) -> Iterable[nn.Module]:
        return [self.trained.encoder, self.trained.decoder, self.classifier]

    def parameters_to_train(self) -> Iterable[nn.Parameter]:
        return self.trained.decoder.parameters()

    def training_step(self, batch, batch_index) -> Tensor:
        images, labels, index = batch
        code, labels = self.frozen(images, labels, index)
        purified = self.trained.decode(code)
        loss = functional.cross_entropy(self.classifier(purified), labels)
        if self.recipe.reconstruction_weight:
            loss = loss + self.recipe.reconstruction_weight * functional.mse_loss(purified, images)
        self.log_loss(loss)
        return loss

    def frozen(self, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Any, Tensor]:
        """Return what does not learn: the encoder's code of each image and the labels to learn, computed or cached."""
        cached = self.codes.get(index) if self.codes else None
        if cached:
            code, labels = cached
            return self._unpacked(code), labels
        with torch.no_grad():
            code = self.trained.encode(images)
            if self.recipe.labels == "classifier":
                labels = self.classifier(images).argmax(dim=1)
        if self.codes:  # the whole batch, even if some are there: another batch size rounds differently
            self.codes.put(index, self._packed(code), labels)
        return code, labels

    def _packed(self, code: Any) -> Any:
        """Return the code as it is cached: smaller, if the autoencoder can pack it."""
        return self.trained.pack(code) if hasattr(self.trained, "pack") else code

    def _unpacked(self, code: Any) -> Any:
        """Return the code as the decoder takes it."""
        return self.trained.unpack(code) if hasattr(self.trained, "pack") else code

    def measure(self, batch) -> dict[str, Tensor]:
        """Return cross-entropy and accuracy of the defended classifier on one validation batch.

        For images without labels (-1), the classifier's own predictions on the clean images are the labels.
        """
        images, labels, _ = batch
        with torch.no_grad():
            logits = self.classifier(self.trained(images))
            if (labels < 0).any():
                labels = torch.where(labels < 0, self.classifier(images).argmax(dim=1), labels)
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
        return "purified", self.trained(images)
