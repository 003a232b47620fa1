"""Stage 2: the decoder learns, through the frozen classifier, what the classifier needs (arXiv 1803.07994)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from s2snet.config.recipe import Stage2Recipe
from s2snet.models import freeze
from s2snet.models.segnet import Code
from s2snet.training.classifier import accuracy
from s2snet.training.codes import Codes
from s2snet.training.stage import Stage


class FinetuneDecoder(Stage):
    """Cross-entropy of the frozen classifier f on D(E(x)); only D learns, E runs without a graph.

    As in the authors' release the decoder's BatchNorm is in training mode; encoder and classifier stay in eval mode
    whatever Lightning calls, so that not even a running statistic of theirs moves.

    recipe: `labels` `truth`, or `classifier` for f's own predictions on x (needs no labels);
    `reconstruction_weight` adds that much of the pixel error (0: none, as in the paper);
    `cache` memory or disk keeps the codes over the epochs (codes.py), none computes them anew.
    """

    def __init__(self, autoencoder: nn.Module, classifier: nn.Module, recipe: Stage2Recipe, seed: int):
        super().__init__(recipe, seed)
        self.trained = autoencoder
        self.classifier = classifier
        self.codes: Codes | None = None  # of recipe.cache; the loop sets it
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

    def frozen(self, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Code, Tensor]:
        """What learns nothing: the encoder's code of each image and the labels to learn, computed or as kept."""
        kept = self.codes.get(index) if self.codes else None
        if kept:
            return kept
        with torch.no_grad():
            code = self.trained.encode(images)
            if self.recipe.labels == "classifier":
                labels = self.classifier(images).argmax(dim=1)
        if self.codes:  # all of the batch was computed, though some may be there: other sizes round otherwise
            self.codes.put(index, code if self.trained.has_indices else code._replace(indices=()), labels)
        return code, labels

    def measure(self, batch) -> dict[str, Tensor]:
        """Cross-entropy and accuracy of the defended classifier on one validation batch.

        For images without labels (-1) the classifier's own predictions on the clean ones stand in.
        """
        images, labels, _ = batch
        with torch.no_grad():
            logits = self.classifier(self.trained(images))
            if (labels < 0).any():
                labels = torch.where(labels < 0, self.classifier(images).argmax(dim=1), labels)
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}

    def compared(self, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
        return "purified", self.trained(images)
