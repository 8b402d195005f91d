"""The ResNet generator of CycleGAN and pix2pix: full, mobile, as a supernet, and exported.

    pad, conv7 3 -> n | conv3 s2 n -> 2n | conv3 s2 2n -> 4n | 9 residual blocks 4n -> 4n
    | transposed conv3 4n -> 2n | transposed conv3 2n -> n | pad, conv7 n -> 3, tanh

Norm and ReLU follow every convolution but the last; a block has no ReLU behind its sum. The mobile
generator has separable convolutions in the blocks alone, which hold most of the cost and hardly
suffer from it (Li et al., CVPR 2020, section 3.3).

A configuration of eight numbers c gives widths to

    c0 first conv | 2 c1 | 4 c2, the residual stream | 4 c3, 4 c4, 4 c5, hidden width of the blocks
    of the first, second and last third | 2 c6 | c7 the transposed convolutions

and one of six repeats c3 for all blocks, with c4 and c5 for the way up. Names in a state dict are
those of the official repository, so that its checkpoints can be loaded.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.networks.configs import Config, check_config
from smallnets.gan.networks.counting import Cost, conv_cost, norm_cost, separable_cost, total
from smallnets.gan.networks.layers import (
    SeparableConv2d,
    SliceableConv2d,
    SliceableConvTranspose2d,
    SliceableSeparableConv2d,
    copy_first,
    make_norm,
)

PARTS = ("down", "blocks", "up")
MOBILE = ("blocks",)
NORMS = ("instance", "batch")
Taps = tuple[Tensor, list[Tensor]]


def eight(config: Sequence[int]) -> Config:
    """A configuration of six numbers as one of eight; one of eight as it is.

    Raises:
        ValueError: another length.
    """
    config = tuple(config)
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


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), reflected at the edges.

    Args:
        channels: of the residual stream.
        hidden: between the two convolutions.
        separable: whether they are.
        norm: see `make_norm`.
        dropout: behind the ReLU.
        sliceable: whether any first channels can be used.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        separable: bool = False,
        norm: str = "instance",
        dropout: float = 0.0,
        sliceable: bool = False,
    ) -> None:
        super().__init__()

        def conv(into: int, out: int) -> nn.Module:
            return _conv(into, out, 3, separable=separable, norm=norm, sliceable=sliceable)

        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            conv(channels, hidden),
            make_norm(norm, hidden, sliceable=sliceable),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ReflectionPad2d(1),
            conv(hidden, channels),
            make_norm(norm, channels, sliceable=sliceable),
        )

    def forward(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """(batch, channels, height, width) -> the same shape.

        Args:
            x: if sliceable, with any first channels of the stream.
            hidden: how many hidden channels to use, if sliceable.
        """
        out = x
        for place, layer in enumerate(self.conv_block):
            if place == 1 and hidden is not None:
                out = layer(out, hidden)
            elif place == 6 and hidden is not None:
                out = layer(out, x.shape[1])
            else:
                out = layer(out)
        return x + out


def _conv(
    into: int, out: int, kernel: int, stride: int = 1, padding: int = 0, *,
    separable: bool, norm: str, sliceable: bool,
) -> nn.Module:  # fmt: skip
    bias = norm == "instance"  # BatchNorm has one of its own
    if separable:
        kind = SliceableSeparableConv2d if sliceable else SeparableConv2d
        return kind(into, out, kernel, stride, padding, bias=bias, norm=norm)
    dense = SliceableConv2d if sliceable else nn.Conv2d
    return dense(into, out, kernel, stride, padding, bias=bias)


def _up(into: int, out: int, *, separable: bool, norm: str, sliceable: bool) -> nn.Module:
    bias = norm == "instance"
    if separable:
        kind = SliceableSeparableConv2d if sliceable else SeparableConv2d
        return kind(into, out, 3, 1, 1, bias=bias, norm=norm, up=True)
    dense = SliceableConvTranspose2d if sliceable else nn.ConvTranspose2d
    return dense(into, out, 3, 2, 1, 1, bias=bias)


class ResNetGenerator(nn.Module):
    """The ResNet generator, at one width or with the widths of a configuration.

    Args:
        in_channels, out_channels: of images.
        ngf: width where no configuration is given.
        n_blocks: residual blocks.
        separable: which parts have separable convolutions, of "down", "blocks" and "up": none in
            the full generator, `MOBILE` in the mobile one, all in the ablation.
        norm: "instance" (published), or "batch".
        config: widths, see the module.
        legacy: see `channels_of`.
        kernel_size: of the first and the last convolution.
        clamp: whether inputs are clamped to [-1, 1]; by default as published, in all but the plain
            mobile generator.
        dropout: in the residual blocks.

    Raises:
        ValueError: unknown parts or norms, numbers below 1, an even kernel, or a configuration of
            another length.
    """

    sliceable = False

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        n_blocks: int = 9,
        *,
        separable: Collection[str] = (),
        norm: str = "instance",
        config: Sequence[int] | None = None,
        legacy: bool = False,
        kernel_size: int = 7,
        clamp: bool | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels), ("out_channels", out_channels), ("ngf", ngf),
            ("n_blocks", n_blocks), ("kernel_size", kernel_size),
        ):  # fmt: skip
            checks.whole(name, value, 1)
        for part in separable:
            checks.one_of("separable part", part, PARTS)
        checks.one_of("norm", norm, NORMS)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd; got {kernel_size}")
        checks.between("dropout", dropout, 0, 1)
        self.config = eight((ngf,) * 8 if config is None else config)
        check_config(self.config, self.config)
        self.in_channels, self.out_channels, self.n_blocks = in_channels, out_channels, n_blocks
        self.separable, self.norm, self.legacy = frozenset(separable), norm, legacy
        self.kernel_size, self.dropout = kernel_size, dropout
        self.clamp = (self.separable != frozenset(MOBILE) or config is not None
                      if clamp is None else clamp)  # fmt: skip
        self.channels = channels_of(self.config, n_blocks, legacy=legacy)
        self.model = nn.Sequential(*self._layers())
        stop = 10 + n_blocks
        self.tap_places = (9, *(10 + last for last in _group_ends(n_blocks)))
        self.places = {1: "first", 4: "down", 7: "stream", stop: "up", stop + 3: "last"}

    def _layers(self) -> list[nn.Module]:
        c, norm, pad = self.channels, self.norm, self.kernel_size // 2
        common: dict[str, Any] = {"norm": norm, "sliceable": self.sliceable}
        down, blocks, up = (part in self.separable for part in PARTS)

        def behind(channels: int) -> list[nn.Module]:
            return [make_norm(norm, channels, sliceable=self.sliceable), nn.ReLU()]

        dense = SliceableConv2d if self.sliceable else nn.Conv2d
        return [
            nn.ReflectionPad2d(pad),
            dense(self.in_channels, c.first, self.kernel_size, bias=norm == "instance"),
            *behind(c.first),
            _conv(c.first, c.down, 3, 2, 1, separable=down, **common),
            *behind(c.down),
            _conv(c.down, c.stream, 3, 2, 1, separable=down, **common),
            *behind(c.stream),
            *(
                ResidualBlock(
                    c.stream, hidden, separable=blocks, dropout=self.dropout, **common
                )
                for hidden in c.hidden
            ),
            _up(c.stream, c.up, separable=up, **common),
            *behind(c.up),
            _up(c.up, c.last, separable=up, **common),
            *behind(c.last),
            nn.ReflectionPad2d(pad),
            dense(c.last, self.out_channels, self.kernel_size),
            nn.Tanh(),
        ]  # fmt: skip

    def tap_channels(self) -> list[int]:
        """Channels of the feature maps that `forward` gives as taps."""
        return [self.channels.stream] * len(self.tap_places)

    def _checked(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images must be (batch, {self.in_channels}, height, width); got {tuple(x.shape)}"
            )
        height, width = x.shape[2:]
        least = max(8, 4 * (self.kernel_size // 2 // 4 + 1))
        if height % 4 or width % 4 or min(height, width) < least:
            raise ValueError(
                f"height and width must be multiples of 4, and at least {least}; "
                f"got {height} x {width}"
            )
        return x.clamp(-1, 1) if self.clamp else x

    def forward(self, x: Tensor, taps: bool = False) -> Tensor | Taps:
        """Images -> images in [-1, 1].

        Args:
            x: (batch, in_channels, height, width), sides multiples of 4.
            taps: whether the features that are distilled come as well: behind the second
                downsampling, and behind each third of the blocks; (batch, stream, height / 4,
                width / 4) each.

        Raises:
            ValueError: other shapes.
        """
        return self._run(self._checked(x), {}, taps)

    def _run(self, x: Tensor, widths: dict[int, int], taps: bool) -> Tensor | Taps:
        tapped = []
        for place, layer in enumerate(self.model):
            x = layer(x, widths[place]) if place in widths else layer(x)
            if taps and place in self.tap_places:
                tapped.append(x)
        return (x, tapped) if taps else x

    def cost(self, size: tuple[int, int]) -> Cost:
        """Of one image of (height, width)."""
        return resnet_cost(
            self.channels, size, self.in_channels, self.out_channels,
            separable=self.separable, norm=self.norm, kernel_size=self.kernel_size,
        )  # fmt: skip


def _group_ends(n_blocks: int) -> list[int]:
    """The last block of every third."""
    groups = [3 * block // n_blocks for block in range(n_blocks)]
    return [b for b in range(n_blocks) if b + 1 == n_blocks or groups[b + 1] != groups[b]]


class SuperResNetGenerator(ResNetGenerator):
    """A ResNet generator with the weights of all narrower ones: a configuration chooses slices.

    Args:
        in_channels, out_channels, ngf, n_blocks, separable, norm, kernel_size, dropout: as
            `ResNetGenerator` has them; by default it is mobile.

    Example:
        >>> supernet = SuperResNetGenerator(ngf=8, n_blocks=3)
        >>> fake = supernet(torch.zeros(1, 3, 16, 16), (4, 4, 6, 2, 2, 4, 8, 8))
        >>> small = supernet.export((4, 4, 6, 2, 2, 4, 8, 8))
    """

    sliceable = True

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        n_blocks: int = 9,
        *,
        separable: Collection[str] = MOBILE,
        norm: str = "instance",
        kernel_size: int = 7,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            in_channels, out_channels, ngf, n_blocks, separable=separable, norm=norm,
            kernel_size=kernel_size, clamp=True, dropout=dropout,
        )  # fmt: skip

    @property
    def full_config(self) -> Config:
        """The widest configuration."""
        return self.config

    def check(self, config: Sequence[int] | None) -> Config:
        """A configuration of eight numbers; None is the full one.

        Raises:
            ValueError: not six or eight numbers, or a width outside 1..ngf.
        """
        if config is None:
            return self.full_config
        if isinstance(config, str):
            return check_config(config, self.config)
        return check_config(eight(config), self.config)

    def tap_channels(self, config: Sequence[int] | None = None) -> list[int]:
        """Channels of the taps at a configuration."""
        return [4 * self.check(config)[2]] * len(self.tap_places)

    def forward(  # type: ignore[override]
        self, x: Tensor, config: Sequence[int] | None = None, taps: bool = False
    ) -> Tensor | Taps:
        """Images -> images, by the first channels of every layer.

        Args:
            x: (batch, in_channels, height, width), sides multiples of 4.
            config: six or eight widths; by default all channels.
            taps: see `ResNetGenerator.forward`.

        Raises:
            ValueError: other shapes, or a configuration that does not fit.
        """
        channels = channels_of(self.check(config), self.n_blocks)
        widths = {place: getattr(channels, name) for place, name in self.places.items()}
        widths |= {10 + block: hidden for block, hidden in enumerate(channels.hidden)}
        return self._run(self._checked(x), widths, taps)

    @torch.no_grad()
    def export(self, config: Sequence[int]) -> ResNetGenerator:
        """A generator of its own with copies of a configuration's weights; it gives the same
        images, bit for bit.
        """
        narrow = ResNetGenerator(
            self.in_channels, self.out_channels, n_blocks=self.n_blocks,
            separable=self.separable, norm=self.norm, config=self.check(config),
            kernel_size=self.kernel_size, clamp=self.clamp, dropout=self.dropout,
        )  # fmt: skip
        like = next(self.parameters())
        copy_first(narrow.to(like.device, like.dtype), self)
        return narrow.train(self.training)

    def cost(  # type: ignore[override]
        self, config: Sequence[int] | None, size: tuple[int, int]
    ) -> Cost:
        """Of one image of (height, width) at a configuration."""
        return resnet_cost(
            channels_of(self.check(config), self.n_blocks), size, self.in_channels,
            self.out_channels, separable=self.separable, norm=self.norm,
            kernel_size=self.kernel_size,
        )  # fmt: skip


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
