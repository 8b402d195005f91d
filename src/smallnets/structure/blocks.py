"""Hand-designed blocks: what a k x k convolution with its norm and ReLU can be instead.

Depthwise separable (MobileNet, Howard et al. 2017), inverted residual (MobileNetV2, Sandler et al.
2018), fire (SqueezeNet, Iandola et al. 2016), shuffle unit (ShuffleNetV2, Ma et al. 2018), grouped
convolution with a shuffle (ShuffleNet, Zhang et al. 2018), squeeze and excite (Hu et al. 2018).
Every block maps (n, c_i, h, w) to (n, c_o, h / stride, w / stride), halves rounded up. Convolutions
are padded by half their kernel and have no bias, except in squeeze and excite.

`block_cost` counts convolutions and linear layers in closed form, without biases and norms.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smallnets.checks import one_of, whole
from smallnets.models.mobile import InvertedResidual, SqueezeExcite
from smallnets.structure.layers import Cost


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of every group to all groups: (n, g, c / g, h, w) with its axes of groups
    and channels transposed.

    Args:
        x: (n, c, h, w).
        groups: g, which divides c.

    Raises:
        ValueError: it does not.
    """
    _divides("channels", x.shape[1], "groups", groups)
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ChannelShuffle(nn.Module):
    """`channel_shuffle` as a module."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = whole("groups", groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        return channel_shuffle(x, self.groups)


def dense_block(in_channels: int, channels: int, stride: int = 1, *, kernel: int = 3) -> nn.Module:
    """k x k convolution, BatchNorm, ReLU: what the others are compared with.

    Raises:
        ValueError: a number is below 1, or the kernel is even; so of all blocks.
    """
    _check(in_channels, channels, stride, kernel)
    return _layer(in_channels, channels, kernel, stride)


def grouped_block(
    in_channels: int, channels: int, stride: int = 1, *, kernel: int = 3, groups: int = 2
) -> nn.Module:
    """k x k convolution in groups, BatchNorm, ReLU, channel shuffle.

    Raises:
        ValueError: the groups do not divide the channels.
    """
    _check(in_channels, channels, stride, kernel)
    for count in (in_channels, channels):
        _divides("channels", count, "groups", groups)
    layer = _layer(in_channels, channels, kernel, stride, groups)
    return layer.append(ChannelShuffle(groups))


def separable_block(
    in_channels: int, channels: int, stride: int = 1, *, kernel: int = 3
) -> nn.Module:
    """Depthwise k x k convolution, BatchNorm, ReLU, 1x1 convolution, BatchNorm, ReLU."""
    _check(in_channels, channels, stride, kernel)
    return nn.Sequential(
        OrderedDict(
            depthwise=_layer(in_channels, in_channels, kernel, stride, in_channels),
            pointwise=_layer(in_channels, channels, 1),
        )
    )


def inverted_block(
    in_channels: int, channels: int, stride: int = 1, *, kernel: int = 3, expansion: int = 4
) -> InvertedResidual:
    """1x1 convolution to `expansion` times the channels, depthwise k x k, 1x1; ReLU6 after the
    first two, nothing after the third; x is added where the shape stays. Expansion 1 has no first
    one.
    """
    _check(in_channels, channels, stride, kernel)
    inner = whole("expansion", expansion, 1) * in_channels
    return InvertedResidual(
        in_channels, inner, channels, kernel, stride, norm="batch", act=nn.ReLU6
    )


class Fire(nn.Module):
    """1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side, concatenated;
    BatchNorm and ReLU after each. A stride is that of the latter two.

    Args:
        in_channels, channels, stride: as of all blocks; half of the `channels`, rounded down, come
            from the 3x3 convolution.
        squeeze: channels between; None is an eighth of `channels`, at least 1, as published.

    Raises:
        ValueError: fewer than 2 channels, or another number below 1.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, *, squeeze: int | None = None
    ) -> None:
        super().__init__()
        _check(in_channels, whole("channels", channels, 2), stride, 3)
        few, three = _squeezed(channels, squeeze), channels // 2
        self.squeeze = _layer(in_channels, few, 1)
        self.one = _layer(few, channels - three, 1, stride)
        self.three = _layer(few, three, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride)."""
        few = self.squeeze(x)
        return torch.cat([self.one(few), self.three(few)], dim=1)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, the other half goes through 1x1, depthwise
    3x3 (no ReLU) and 1x1; then the halves are shuffled. Where the shape changes, all channels take
    both paths, and the first one is depthwise 3x3 and 1x1.

    Args:
        in_channels, channels, stride: as of all blocks; both numbers of channels are even.

    Raises:
        ValueError: channels are odd, or a number is below 1.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        _check(in_channels, channels, stride, 3)
        for count in (in_channels, channels):
            _divides("channels", count, "halves", 2)
        self.splits = stride == 1 and in_channels == channels
        half, taken = channels // 2, in_channels // 2 if self.splits else in_channels
        self.work = nn.Sequential(
            _layer(taken, half, 1),
            _layer(half, half, 3, stride, half, act=False),
            _layer(half, half, 1),
        )
        self.pass_on = (
            nn.Identity()
            if self.splits
            else nn.Sequential(
                _layer(taken, taken, 3, stride, taken, act=False), _layer(taken, half, 1)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride)."""
        left, right = x.chunk(2, dim=1) if self.splits else (x, x)
        return channel_shuffle(torch.cat([self.pass_on(left), self.work(right)], dim=1), 2)


def excited_block(
    in_channels: int, channels: int, stride: int = 1, *, kernel: int = 3, ratio: int = 4
) -> nn.Module:
    """k x k convolution, BatchNorm, ReLU, squeeze and excite to a `ratio`-th of the channels, at
    least one.
    """
    _check(in_channels, channels, stride, kernel)
    squeezed = max(1, channels // whole("ratio", ratio, 1))
    return _layer(in_channels, channels, kernel, stride).append(SqueezeExcite(channels, squeezed))


def skip_block(in_channels: int, channels: int, stride: int = 1) -> nn.Identity:
    """Nothing at all, where the shape stays.

    Raises:
        ValueError: it changes.
    """
    _check(in_channels, channels, stride, 1)
    if stride != 1 or in_channels != channels:
        raise ValueError(
            "skip needs as many channels as it gives, and stride 1; "
            f"got {in_channels} to {channels}, stride {stride}"
        )
    return nn.Identity()


BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "dense": dense_block,
    "grouped": grouped_block,
    "separable": separable_block,
    "inverted": inverted_block,
    "inverted2": partial(inverted_block, expansion=2),
    "fire": Fire,
    "shuffle": ShuffleUnit,
    "excited": excited_block,
    "skip": skip_block,
}


def make_block(
    block: str, in_channels: int, channels: int, stride: int = 1, **options: Any
) -> nn.Module:
    """A block of `BLOCKS` by its name, with its own options.

    Raises:
        ValueError: an unknown name or option, or as the block.
    """
    one_of("block", block, BLOCKS)
    try:
        return BLOCKS[block](in_channels, channels, stride, **options)
    except TypeError as error:
        raise ValueError(f"block {block!r} has no such option; got {', '.join(options)}") from error


def block_cost(
    block: str,
    in_channels: int,
    channels: int,
    pixels: int,
    stride: int = 1,
    *,
    kernel: int = 3,
    groups: int = 2,
    expansion: int = 4,
    squeeze: int | None = None,
    ratio: int = 4,
) -> Cost:
    """Weights and multiply-adds of a block in closed form (the specification's table): convolutions
    and linear layers, no biases, no norms.

    Args:
        block: a name of `BLOCKS`.
        in_channels, channels, stride: of the block.
        pixels: positions m of its output; its input has m * stride^2.
        kernel, groups, expansion, squeeze, ratio: of the blocks that have them.

    Returns:
        `weights`, and `macs` for one example.

    Raises:
        ValueError: an unknown name, or a number below 1.
    """
    one_of("block", block, BLOCKS)
    _check(in_channels, channels, stride, kernel)
    m, m_in = whole("pixels", pixels, 1), pixels * stride**2
    c, o, k2 = in_channels, channels, kernel**2

    def at(*parts: tuple[int, int]) -> Cost:
        """Parts (weights, positions)."""
        return Cost(sum(w for w, _ in parts), sum(w * positions for w, positions in parts))

    if block == "skip":
        return at()
    if block == "dense":
        return at((c * o * k2, m))
    if block == "grouped":
        for count in (c, o):
            _divides("channels", count, "groups", groups)
        return at((c * o * k2 // groups, m))
    if block == "separable":
        return at((c * (k2 + o), m))
    if block.startswith("inverted"):
        inner = (2 if block == "inverted2" else expansion) * c
        return at((c * inner if inner != c else 0, m_in), (inner * (k2 + o), m))
    if block == "fire":
        few, three = _squeezed(o, squeeze), o // 2
        return at((c * few, m_in), (few * (o - three) + 9 * few * three, m))
    if block == "shuffle":
        half = o // 2
        if stride == 1 and c == o:
            return at((2 * half**2 + 9 * half, m))
        return at((c * half, m_in), (9 * half + half**2 + 9 * c + c * half, m))
    squeezed = max(1, o // ratio)
    return at((c * o * k2, m), (2 * o * squeezed, 1))


def _squeezed(channels: int, squeeze: int | None) -> int:
    return max(1, channels // 8) if squeeze is None else whole("squeeze", squeeze, 1)


def _layer(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    act: bool = True,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, and ReLU if `act`."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(
            in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        norm=nn.BatchNorm2d(channels),
    )
    if act:
        parts["act"] = nn.ReLU()
    return nn.Sequential(parts)


def _check(in_channels: int, channels: int, stride: int, kernel: int) -> None:
    whole("in_channels", in_channels, 1)
    whole("channels", channels, 1)
    whole("stride", stride, 1)
    if whole("kernel", kernel, 1) % 2 == 0:
        raise ValueError(f"kernel must be odd; got {kernel}")


def _divides(name: str, count: int, parts: str, number: int) -> None:
    if count % whole(parts, number, 1):
        raise ValueError(f"{name} must be divisible by {number} {parts}; got {count}")
