"""ResNets of 20, 32, 44 and 56 layers for images of 32 x 32 (He et al., arXiv 1512.03385, section 4.2)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from s2snet.models.normalised import Normalisation


class CifarResNet(nn.Module):
    """A classifier: images [B, C, H, W] in [0, 1] -> logits [B, classes].

    A 3x3 convolution of 16 channels; three groups of `blocks` residual blocks with 16, 32 and 64 channels, the last two
    of which halve the resolution; global average pooling; a linear layer. 6 x blocks + 2 layers. Layer names are those
    of the public CIFAR-10 weights (akamaster/pytorch_resnet_cifar10).
    """

    def __init__(
        self,
        blocks: int = 3,
        channels: int = 3,
        classes: int = 10,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ):
        super().__init__()
        self.normalisation = Normalisation(mean, std, channels)
        self.conv1, self.bn1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(inside, outside), *(Block(outside, outside) for _ in range(blocks - 1)))
            for inside, outside in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(self.normalisation(images))))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))


class Block(nn.Module):
    """Two convolutions. If sizes change, the shortcut takes every other pixel and pads channels with zeros."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.stride = outside // inside
        self.conv1 = nn.Conv2d(inside, outside, 3, self.stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.padding = (outside - inside) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + shortcut)


def _of(blocks: int):
    def build(
        channels: int = 3,
        classes: int = 10,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> CifarResNet:
        return CifarResNet(blocks, channels, classes, mean, std)

    return build


resnet20, resnet32, resnet44, resnet56 = (_of(blocks) for blocks in (3, 5, 7, 9))
