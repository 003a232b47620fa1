"""A small convolutional classifier for images of 28 to 64 pixels."""

from collections.abc import Sequence

from torch import Tensor, nn

from s2snet.models.normalised import Normalisation


class SmallCNN(nn.Module):
    """A classifier: images [B, C, H, W] in [0, 1] -> logits [B, classes].

    One stage per width: `convs` times conv-BatchNorm-ReLU, then 2x2 max pooling. Global average pooling, dropout and a
    linear layer follow.
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        widths: Sequence[int] = (24, 48, 96),
        convs: int = 1,
        dropout: float = 0.0,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ):
        super().__init__()
        layers, width = [], channels
        for out in widths:
            for _ in range(convs):
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                width = out
            layers.append(nn.MaxPool2d(2))
        self.normalisation = Normalisation(mean, std, channels)
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(self.normalisation(images)).mean(dim=(2, 3)))
