"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), with pre-activation."""

import math
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from smallnets.checks import whole
from smallnets.models.staged import StagedNetwork, blocks_per_stage, pooled_classifier

STEM = 16  # the first convolution's channels, whatever the width


def wide_resnet(
    depth: int,
    width: int,
    num_classes: int,
    in_channels: int = 3,
    *,
    tensorflow: bool = False,
) -> StagedNetwork:
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
        tensorflow: as the TensorFlow code of the augmented image prior (Asano & Saeed, 2023) has
            them, so that its weights can be loaded: the first block of *every* stage adds its
            branch to the activated input (which matters for k = 1), convolutions of stride 2 pad
            below and to the right only (of even sizes), the norms' eps is 1e-3 and their momentum
            0.01, and weights start from He's normal distribution by fan-in.

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
        stage = [
            PreActivationBlock(
                channels, wide, 1 if i == 0 else 2, activated_sum=tensorflow, pad_end=tensorflow
            )
        ]
        stage += [PreActivationBlock(wide, wide) for _ in range(blocks - 1)]
        parts[f"stage{i + 1}"] = nn.Sequential(*stage)
        channels = wide
    parts["norm"] = nn.BatchNorm2d(channels)
    parts["relu"] = nn.ReLU()
    parts.update(pooled_classifier(channels, num_classes))

    network = StagedNetwork(parts)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            ends = module.in_channels if tensorflow else module.out_channels
            nn.init.normal_(
                module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * ends))
            )
        elif tensorflow and isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.01
    nn.init.zeros_(network.classifier.bias)
    return network


class SamePadding(nn.Module):
    """TensorFlow's padding "same" of a 3x3 convolution of stride 2: a zero below and to the right,
    and above and to the left only of odd sizes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h + 1 or 2, w + 1 or 2)."""
        return functional.pad(x, (x.shape[3] % 2, 1, x.shape[2] % 2, 1))


class PreActivationBlock(nn.Module):
    """x + conv(ReLU(norm(conv(ReLU(norm(x)))))).

    Where the width changes, x is replaced by a 1x1 convolution of the *activated* input
    ReLU(norm(x)); with `activated_sum` by the activated input itself where it does not. With
    `pad_end` a convolution of stride 2 pads as `SamePadding` does.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        activated_sum: bool = False,
        pad_end: bool = False,
    ) -> None:
        super().__init__()
        self.activated_sum = activated_sum
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.pad = SamePadding() if pad_end and stride == 2 else None
        padding = 1 if self.pad is None else 0
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride), halves rounded up."""
        activated = self.relu1(self.norm1(x))
        if self.shortcut is None:
            shortcut = activated if self.activated_sum else x
        else:
            shortcut = self.shortcut(activated)
        out = self.conv1(activated if self.pad is None else self.pad(activated))
        out = self.conv2(self.relu2(self.norm2(out)))
        return shortcut + out
