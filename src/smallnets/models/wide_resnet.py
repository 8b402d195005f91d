"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), with pre-activation."""

import math
from collections import OrderedDict

from torch import Tensor, nn

from smallnets.checks import whole
from smallnets.models.staged import StagedNetwork, blocks_per_stage, pooled_classifier

STEM = 16  # the first convolution's channels, whatever the width


def wide_resnet(depth: int, width: int, num_classes: int, in_channels: int = 3) -> StagedNetwork:
    """WRN-`depth`-`width` with `depth` = 6n + 4: WRN-10-1, WRN-16-2, WRN-40-1, WRN-16-8, ...

    A 3x3 convolution, three stages of n blocks with 16k, 32k and 64k channels (k = `width`) at
    strides 1, 2, 2, BatchNorm, ReLU, pooling, a linear layer. A stage's feature map is its raw
    residual sum, before the next norm and ReLU, so it has both signs; `norm` is the last stage's
    map after the final BatchNorm, `relu` the same after the ReLU.

    Args:
        depth: number of layers with weights.
        width: factor k on the channels of the stages.
        num_classes: length of the logits.
        in_channels: channels of the images.

    Raises:
        ValueError: for a depth that is not 6n + 4, or a size below 1.
    """
    blocks = blocks_per_stage(depth, 4)
    whole("width", width, 1)
    whole("in_channels", in_channels, 1)

    channels = STEM
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    for i in range(3):
        wide = 16 * width * 2**i
        stage = [PreActivationBlock(channels, wide, stride=1 if i == 0 else 2)]
        stage += [PreActivationBlock(wide, wide) for _ in range(blocks - 1)]
        parts[f"stage{i + 1}"] = nn.Sequential(*stage)
        channels = wide
    parts["norm"] = nn.BatchNorm2d(channels)
    parts["relu"] = nn.ReLU()
    parts.update(pooled_classifier(channels, num_classes))

    network = StagedNetwork(parts)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    nn.init.zeros_(network.classifier.bias)
    return network


class PreActivationBlock(nn.Module):
    """x + conv(ReLU(norm(conv(ReLU(norm(x)))))).

    Where the width changes, x is replaced by a 1x1 convolution of the *activated* input
    ReLU(norm(x)).
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride), halves rounded up."""
        activated = self.relu1(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        out = self.conv1(activated)
        out = self.conv2(self.relu2(self.norm2(out)))
        return shortcut + out
