"""Residual networks for 32x32 images (He et al., Deep Residual Learning, CVPR 2016, section 4.2).

As in distillation benchmarks, a shortcut that changes shape is a 1x1 convolution with BatchNorm
(their option B); the original CIFAR networks pad with zeros instead, which has slightly fewer
parameters.
"""

from collections import OrderedDict

from torch import Tensor, nn

from smallnets.checks import whole
from smallnets.models.staged import StagedNetwork, blocks_per_stage, pooled_classifier


def cifar_resnet(
    depth: int,
    num_classes: int,
    in_channels: int = 3,
    *,
    width: int = 16,
    stem: int | None = None,
) -> StagedNetwork:
    """ResNet of `depth` = 6n + 2 layers: resnet8, 14, 20, 32, 44, 56, 110.

    A 3x3 stem, then three stages of n basic blocks with w, 2w and 4w channels (w = `width`) at
    strides 1, 2, 2. A stage's feature map is taken after its last ReLU. The benchmarks' wide
    "resnet8x4" and "resnet32x4" are depths 8 and 32 with `width=64, stem=32`.

    Args:
        depth: number of layers with weights on the longest path.
        num_classes: length of the logits.
        in_channels: channels of the images.
        width: channels of the first stage.
        stem: channels of the first convolution; `width` if not given.

    Raises:
        ValueError: for a depth that is not 6n + 2, or a size below 1.
    """
    blocks = blocks_per_stage(depth, 2)
    whole("in_channels", in_channels, 1)
    whole("width", width, 1)
    channels = width if stem is None else whole("stem", stem, 1)

    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    parts["norm"] = nn.BatchNorm2d(channels)
    parts["relu"] = nn.ReLU()
    for i in range(3):
        stage = [BasicBlock(channels, width * 2**i, stride=1 if i == 0 else 2)]
        channels = width * 2**i
        stage += [BasicBlock(channels, channels) for _ in range(blocks - 1)]
        parts[f"stage{i + 1}"] = nn.Sequential(*stage)
    parts.update(pooled_classifier(channels, num_classes))

    network = StagedNetwork(parts)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class BasicBlock(nn.Module):
    """ReLU(x + norm(conv(ReLU(norm(conv(x)))))), with a projection of x where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(
                OrderedDict(conv=projection, norm=nn.BatchNorm2d(channels))
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride), halves rounded up."""
        out = self.relu1(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))
