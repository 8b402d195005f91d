"""Pre-activation residual networks for small images (He et al., Identity Mappings, ECCV 2016).

As in the code of Stanton et al. (2021): depths from 44 on are built of bottlenecks, so that their
"ResNet-56" has 0.61 million parameters; and a shortcut that changes shape is a 1x1 convolution of
the block's raw input.
"""

from collections import OrderedDict
from math import sqrt

from torch import Tensor, nn

from smallnets.checks import one_of, whole
from smallnets.models.convnet import norm_layer
from smallnets.models.staged import StagedNetwork, pooled_classifier

BOTTLENECKS_FROM = 44
NORMS = ("batch", "layer")


def preact_resnet(
    depth: int, num_classes: int, in_channels: int = 3, *, norm: str = "batch"
) -> StagedNetwork:
    """Stages of 16, 32 and 64 channels at strides 1, 2, 2; depth 6n + 2, or 9n + 2 from 44 on.

    A bottleneck stage ends with four times its channels.

    Args:
        depth: 8, 14, 20, 26, 32, 38 (basic blocks of two convolutions), 47, 56, 110, ...
            (bottlenecks of three).
        num_classes: length of the logits.
        in_channels: channels of the images.
        norm: "batch", or "layer" (over channels and positions), with which equal weights give equal
            outputs in training and evaluation.

    Raises:
        ValueError: for a depth that does not fit, or an unknown norm.
    """
    one_of("norm", norm, NORMS)
    deep = whole("depth", depth, 1) >= BOTTLENECKS_FROM
    blocks, rest = divmod(depth - 2, 9 if deep else 6)
    if rest or blocks < 1:
        raise ValueError(f"depth must be 6n + 2 below 44 and 9n + 2 from there; got {depth}")
    expansion = 4 if deep else 1
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(whole("in_channels", in_channels, 1), 16, 3, padding=1, bias=False)
    channels = 16
    for i, width in enumerate((16, 32, 64)):
        stage: list[nn.Module] = []
        for j in range(blocks):
            stride = 2 if i and not j else 1
            stage.append(PreActivationBlock(channels, width, stride, deep, norm))
            channels = expansion * width
        parts[f"stage{i + 1}"] = nn.Sequential(*stage)
    parts["norm"] = norm_layer(norm, channels)
    parts["relu"] = nn.ReLU()
    parts.update(pooled_classifier(channels, num_classes))
    network = StagedNetwork(parts)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=sqrt(2 / fan_out))
    return network


class PreActivationBlock(nn.Module):
    """x + convolutions of ReLU(norm(.)), with a 1x1 convolution of x where the shape changes."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, bottleneck: bool, norm: str
    ) -> None:
        super().__init__()
        out = 4 * channels if bottleneck else channels
        sizes = [
            (in_channels, channels, 1 if bottleneck else 3, 1 if bottleneck else stride),
            (channels, channels, 3, stride if bottleneck else 1),
        ]
        sizes += [(channels, out, 1, 1)] if bottleneck else []
        layers: list[nn.Module] = []
        for before, after, kernel, step in sizes:
            conv = nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False)
            layers += [norm_layer(norm, before), nn.ReLU(), conv]
        self.residual = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out:
            self.shortcut = nn.Conv2d(in_channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels or 4 channels, h / stride, w / stride)."""
        return self.shortcut(x) + self.residual(x)
