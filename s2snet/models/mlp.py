"""A fully connected classifier; without hidden layers it is softmax regression."""

from collections.abc import Sequence

from torch import Tensor, nn

from s2snet.models.normalised import Normalisation


class MLP(nn.Module):
    """A classifier: images [B, channels, size, size] in [0, 1] -> logits [B, classes].

    One linear layer and ReLU per width in `hidden`, then a linear layer.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 32,
        classes: int = 10,
        hidden: Sequence[int] = (128,),
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ):
        super().__init__()
        self.normalisation = Normalisation(mean, std, channels)
        layers, width = [], channels * size**2
        for out in hidden:
            layers += [nn.Linear(width, out), nn.ReLU()]
            width = out
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(self.normalisation(images))
