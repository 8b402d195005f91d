"""The small plain ConvNet on which most chapters run their experiments."""

from collections import OrderedDict
from math import gcd

from torch import nn

from smallnets.checks import one_of, whole
from smallnets.models.staged import StagedNetwork, pooled_classifier

NORMS = ("batch", "instance", "group", "layer", "none")


def convnet(
    width: int,
    num_classes: int,
    in_channels: int = 3,
    *,
    depth: int = 3,
    norm: str = "batch",
    stem_stride: int = 1,
) -> StagedNetwork:
    """Stages of 3x3 convolution, norm and ReLU, then global average pooling and a linear layer.

    Stage i of `depth` has `width` * 2^(i-1) channels; its feature map, after the ReLU, is the
    output of the submodule `stage<i>`. Any input size will do, since every halving rounds up; only
    a norm needs more than one number to average, so not a batch of one with maps of 1x1.

    Args:
        width: channels of the first stage.
        num_classes: length of the logits.
        in_channels: 3 for colour, 1 for grey; any number works.
        depth: number of stages.
        norm: "batch", "instance", "group" (8 groups, or fewer where 8 does not divide the
            channels), "layer" (over channels and positions together) or "none" (the convolutions
            then have a bias).
        stem_stride: stride of the first convolution. Every later stage starts with a 2x2 max-pool,
            so a 32x32 image becomes maps of 32, 16 and 8 with stride 1, and of 16, 8 and 4 with
            stride 2, which takes a quarter of the multiplications.

    Raises:
        ValueError: for a size below 1, or an unknown norm.
    """
    whole("width", width, 1)
    whole("in_channels", in_channels, 1)
    whole("depth", depth, 1)
    one_of("norm", norm, NORMS)
    whole("stem_stride", stem_stride, 1)

    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for i in range(depth):
        stride = stem_stride if i == 0 else 1
        parts[f"stage{i + 1}"] = _stage(channels, width * 2**i, norm, stride, pool_first=i > 0)
        channels = width * 2**i
    parts.update(pooled_classifier(channels, num_classes))
    return StagedNetwork(parts)


def _stage(
    in_channels: int, channels: int, norm: str, stride: int, pool_first: bool
) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if pool_first:
        # Rounding up, as a padded convolution of stride 2 does, never pools an image away.
        parts["pool"] = nn.MaxPool2d(2, ceil_mode=True)
    bias = norm == "none"  # a norm would subtract or relearn it
    parts["conv"] = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=bias)
    if norm != "none":
        parts["norm"] = norm_layer(norm, channels)
    parts["relu"] = nn.ReLU()
    return nn.Sequential(parts)


def norm_layer(norm: str, channels: int) -> nn.Module:
    """A norm by its name; instance and layer norm are group norm with the most and the fewest
    groups (Wu & He).
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = {"instance": channels, "group": gcd(8, channels), "layer": 1}
    return nn.GroupNorm(groups[norm], channels)
