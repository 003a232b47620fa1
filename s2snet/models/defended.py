"""`Defended`, a purifier in front of a classifier, which is a classifier again; and `freeze`."""

from torch import Tensor, nn


class Identity(nn.Module):
    """The purifier of an undefended classifier: it returns the images unchanged."""

    def forward(self, images: Tensor) -> Tensor:
        return images


class Defended(nn.Module):
    """A classifier: images [B, C, H, W] in [0, 1] -> logits [B, K] = classifier(purifier(images)).

    The purifier's output is passed on unclipped. `purifier=None` is the identity. The module starts in training mode
    if one of its parts is in training mode; the parts' own modes are not changed.
    """

    def __init__(self, purifier: nn.Module | None, classifier: nn.Module):
        super().__init__()
        self.purifier = Identity().eval() if purifier is None else purifier
        self.classifier = classifier
        self.training = self.purifier.training or classifier.training

    @property
    def has_purifier(self) -> bool:
        return not isinstance(self.purifier, Identity)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.purifier(images))


def freeze(module: nn.Module) -> nn.Module:
    """Put the module into eval mode, turn off its parameters' gradients and return it.

    A later `.train()` on a parent would put it back into training mode and update its BatchNorm statistics, so a parent
    that trains must call this again in its own `train()`, as training/finetune.py does.
    """
    return module.eval().requires_grad_(False)
