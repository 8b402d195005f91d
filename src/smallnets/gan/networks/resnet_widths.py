"""What the numbers of a ResNet configuration stand for, and what they cost.

A configuration of eight numbers c gives widths to

    c0 first conv | 2 c1 | 4 c2, the residual stream | 4 c3, 4 c4, 4 c5, hidden width of the blocks
    of the first, second and last third | 2 c6 | c7 the transposed convolutions

and one of six repeats c3 for all blocks, with c4 and c5 for the way up.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from smallnets.gan.networks.configs import Config, as_config
from smallnets.gan.networks.counting import Cost, conv_cost, norm_cost, separable_cost, total

MOBILE = ("blocks",)


def eight(config: Sequence[int]) -> Config:
    """A configuration of six numbers as one of eight; one of eight as it is.

    Raises:
        ValueError: another length.
    """
    config = as_config(config)
    if len(config) == 6:
        return (*config[:3], *[config[3]] * 3, *config[4:])
    if len(config) != 8:
        raise ValueError(f"a configuration must have 6 or 8 widths; got {len(config)}")
    return config


@dataclass(frozen=True)
class Channels:
    """Actual numbers of channels.

    Attributes:
        first, down, stream, up, last: of the convolutions outside the blocks.
        hidden: of every residual block.
    """

    first: int
    down: int
    stream: int
    hidden: tuple[int, ...]
    up: int
    last: int


def channels_of(config: Sequence[int], n_blocks: int = 9, *, legacy: bool = False) -> Channels:
    """The channels that a configuration of six or eight numbers stands for.

    Args:
        config: see the module.
        n_blocks: residual blocks, in three groups as equal as may be.
        legacy: as the first released networks were: only the first block of a group has the hidden
            width of the configuration, and the others the residual width.
    """
    c = eight(config)
    groups = [3 * block // n_blocks for block in range(n_blocks)]
    hidden = tuple(
        4 * c[2] if legacy and block and groups[block - 1] == group else 4 * c[3 + group]
        for block, group in enumerate(groups)
    )
    return Channels(c[0], 2 * c[1], 4 * c[2], hidden, 2 * c[6], c[7])


def group_ends(n_blocks: int) -> list[int]:
    """The last block of every third."""
    groups = [3 * block // n_blocks for block in range(n_blocks)]
    return [b for b in range(n_blocks) if b + 1 == n_blocks or groups[b + 1] != groups[b]]


def resnet_cost(
    channels: Channels,
    size: tuple[int, int],
    in_channels: int = 3,
    out_channels: int = 3,
    *,
    separable: Collection[str] = MOBILE,
    norm: str = "instance",
    kernel_size: int = 7,
) -> Cost:
    """Multiply-accumulates and parameters of a ResNet generator in closed form.

    Args:
        channels: see `channels_of`.
        size: height and width of the image, multiples of 4.
        in_channels, out_channels, separable, norm, kernel_size: as in the generator.
    """
    c, pixels, bias = channels, size[0] * size[1], norm == "instance"

    def conv(pixels: int, into: int, out: int, part: str, up: int = 1) -> Cost:
        if part in separable:
            return separable_cost(pixels, into, out, 3, up=up, norm=norm, bias=bias)
        return conv_cost(pixels, into, out, 3, bias=bias, up=up)

    full, half, quarter = pixels, pixels // 4, pixels // 16
    blocks = {
        hidden: conv(quarter, c.stream, hidden, "blocks")
        + norm_cost(quarter, hidden, norm)
        + conv(quarter, hidden, c.stream, "blocks")
        + norm_cost(quarter, c.stream, norm)
        for hidden in set(c.hidden)
    }
    return total(
        [
            conv_cost(full, in_channels, c.first, kernel_size, bias=bias),
            norm_cost(full, c.first, norm),
            conv(half, c.first, c.down, "down"),
            norm_cost(half, c.down, norm),
            conv(quarter, c.down, c.stream, "down"),
            norm_cost(quarter, c.stream, norm),
            *(blocks[hidden] for hidden in c.hidden),
            conv(half, c.stream, c.up, "up", 4),
            norm_cost(half, c.up, norm),
            conv(full, c.up, c.last, "up", 4),
            norm_cost(full, c.last, norm),
            conv_cost(full, c.last, out_channels, kernel_size),
        ]
    )
