"""`Defended`: a purifier in front of a classifier is a classifier again; and how parts are frozen."""

from torch import Tensor, nn


class Identity(nn.Module):
    """The purifier that leaves images alone: the undefended classifier's."""

    def forward(self, images: Tensor) -> Tensor:
        return images


class Defended(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> logits [B, K]: classifier(purifier(images)).

    The purifier's output is not clipped: the classifier sees it as it is. `purifier=None` is the identity. It is in
    training mode if one of its parts is: a part whose dropout stays on in eval mode is left alone.
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
    """The module itself, in eval mode, none of its parameters asking for gradients.

    A later `.train()` on a parent would put it back into training mode and let its BatchNorm statistics move,
    so a parent that trains must call this again in its own `train()` (training/finetune.py does).
    """
    return module.eval().requires_grad_(False)
