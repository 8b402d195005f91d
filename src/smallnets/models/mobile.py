"""Mobile networks: depthwise convolutions between two 1x1 convolutions that widen and narrow.

`mobilenet_v2` (Sandler et al., CVPR 2018) and `mobilenet_v3` (Howard et al., ICCV 2019) have the
published sizes; `mobile` is a small one for 32x32 images.
"""

from collections import OrderedDict
from functools import partial
from math import gcd

from torch import Tensor, nn

from smallnets.checks import above, one_of, whole
from smallnets.models.staged import StagedNetwork, pooled_classifier

NORMS = ("batch", "group")

# Rows: expansion, channels, units, stride of the first unit.
_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
# Rows, one a unit: kernel, inner channels, channels, squeeze and excite, hard swish, stride.
_V3_LARGE = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip
_V3_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip
_V3 = {"large": (_V3_LARGE, 960, 1280), "small": (_V3_SMALL, 576, 1024)}


def mobile(
    width: int,
    num_classes: int,
    in_channels: int = 3,
    *,
    expansion: int = 3,
    blocks: int = 1,
    norm: str = "batch",
    stem_stride: int = 2,
) -> StagedNetwork:
    """A small mobile network: a 3x3 stem, then three stages of inverted residuals.

    Stage i has `width` * 2^(i-1) channels and `blocks` units, the first of stride 1, 2, 2; its
    feature map is its output, which is linear.

    Args:
        width: channels of the stem and of the first stage.
        num_classes: length of the logits.
        in_channels: channels of the images.
        expansion: inner channels of a unit, as a multiple of those it takes in.
        blocks: units a stage.
        norm: "batch", or "group" (8 groups, or fewer where 8 does not divide the channels).
        stem_stride: stride of the first convolution.

    Raises:
        ValueError: for a size below 1, or an unknown norm.
    """
    for name, value in (("width", width), ("in_channels", in_channels), ("blocks", blocks)):
        whole(name, value, 1)
    whole("expansion", expansion, 1)
    whole("stem_stride", stem_stride, 1)
    one_of("norm", norm, NORMS)
    layer = partial(_layer, norm=norm, act=nn.ReLU)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=layer(in_channels, width, 3, stem_stride))
    channels = width
    for i in range(3):
        units = []
        for unit in range(blocks):
            stride = 2 if i > 0 and unit == 0 else 1
            inner, out = expansion * channels, width * 2**i
            units.append(InvertedResidual(channels, inner, out, 3, stride, norm=norm, act=nn.ReLU))
            channels = out
        parts[f"stage{i + 1}"] = nn.Sequential(*units)
    parts["head"] = layer(channels, 2 * channels, 1)
    parts.update(pooled_classifier(2 * channels, num_classes))
    return StagedNetwork(parts)


def mobilenet_v2(
    num_classes: int, in_channels: int = 3, *, width: float = 1.0, norm: str = "batch"
) -> StagedNetwork:
    """MobileNetV2: 3.5 million parameters for a thousand classes, 301 million MACs at 224x224.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images.
        width: multiplies all channels, which are then rounded to multiples of 8.
        norm: "batch" as published, or "group".

    Raises:
        ValueError: for a width that is not above 0, a size below 1, or an unknown norm.
    """
    above("width", width, 0)
    whole("in_channels", in_channels, 1)
    one_of("norm", norm, NORMS)
    layer = partial(_layer, norm=norm, act=nn.ReLU6)
    channels = _rounded(32 * width)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=layer(in_channels, channels, 3, 2))
    for i, (expansion, base, count, stride) in enumerate(_V2):
        units, out = [], _rounded(base * width)
        for unit in range(count):
            first = stride if unit == 0 else 1
            units.append(
                InvertedResidual(
                    channels, expansion * channels, out, 3, first, norm=norm, act=nn.ReLU6
                )
            )
            channels = out
        parts[f"stage{i + 1}"] = nn.Sequential(*units)
    last = _rounded(1280 * max(1.0, width))
    parts["head"] = layer(channels, last, 1)
    parts.update(pooled_classifier(last, num_classes))
    return StagedNetwork(parts)


def mobilenet_v3(
    num_classes: int, in_channels: int = 3, *, size: str = "large", norm: str = "batch"
) -> StagedNetwork:
    """MobileNetV3, "large" (5.5 million parameters for a thousand classes) or "small" (2.5).

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images.
        size: "large" or "small".
        norm: "batch" as published, or "group", as function matching uses it.

    Raises:
        ValueError: for an unknown size or norm, or a number below 1.
    """
    one_of("size", size, _V3)
    whole("in_channels", in_channels, 1)
    one_of("norm", norm, NORMS)
    rows, last, hidden = _V3[size]
    layer = partial(_layer, norm=norm, act=nn.Hardswish)
    stages: list[list[nn.Module]] = []
    channels = 16
    for kernel, inner, out, squeezed, swish, stride in rows:
        if stride > 1 or not stages:
            stages.append([])
        act = nn.Hardswish if swish else nn.ReLU
        stages[-1].append(
            InvertedResidual(
                channels, inner, out, kernel, stride, norm=norm, act=act, squeezed=squeezed
            )
        )
        channels = out
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=layer(in_channels, 16, 3, 2))
    parts |= {f"stage{i + 1}": nn.Sequential(*units) for i, units in enumerate(stages)}
    parts["head"] = layer(channels, last, 1)
    end = pooled_classifier(hidden, num_classes)
    parts |= {
        "pool": end["pool"],
        "flatten": end["flatten"],
        "hidden": nn.Linear(last, hidden),
        "swish": nn.Hardswish(),
        "classifier": end["classifier"],
    }
    return StagedNetwork(parts)


class InvertedResidual(nn.Module):
    """1x1 convolution to `inner` channels, depthwise convolution, 1x1 convolution to `channels`.

    Norms after all three, activations after the first two; x is added where the shape stays. The
    first convolution is left out where `inner` equals the channels that come in.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        channels: int,
        kernel: int,
        stride: int,
        *,
        norm: str,
        act: type[nn.Module],
        squeezed: bool = False,
    ) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if inner != in_channels:
            parts["widen"] = _layer(in_channels, inner, 1, norm=norm, act=act)
        parts["depthwise"] = _layer(inner, inner, kernel, stride, inner, norm=norm, act=act)
        if squeezed:
            parts["excite"] = SqueezeExcite(inner, _rounded(inner / 4))
        parts["narrow"] = _layer(inner, channels, 1, norm=norm, act=nn.Identity)
        self.path = nn.Sequential(parts)
        self.adds = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride), halves rounded up."""
        return x + self.path(x) if self.adds else self.path(x)


class SqueezeExcite(nn.Module):
    """Scales every channel by a number in [0, 1] computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        return x * self.gate(x)


def _layer(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    norm: str,
    act: type[nn.Module],
) -> nn.Sequential:
    """Convolution without bias, norm, activation."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(
                in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False
            ),
            norm=nn.BatchNorm2d(channels)
            if norm == "batch"
            else nn.GroupNorm(gcd(8, channels), channels),
            act=act(),
        )
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than a tenth below `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
