"""The ResNet generator of CycleGAN and pix2pix: full, mobile, and with the widths of a
configuration.

    pad, conv7 3 -> n | conv3 s2 n -> 2n | conv3 s2 2n -> 4n | 9 residual blocks 4n -> 4n
    | transposed conv3 4n -> 2n | transposed conv3 2n -> n | pad, conv7 n -> 3, tanh

Norm and ReLU follow every convolution but the last; a block has no ReLU behind its sum. The mobile
generator has separable convolutions in the blocks alone, which hold most of the cost and hardly
suffer from it (Li et al., CVPR 2020, section 3.3).

Names in a state dict are those of the official repository, so that its checkpoints can be loaded.
"""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.networks.configs import check_config
from smallnets.gan.networks.counting import Cost
from smallnets.gan.networks.layers import (
    NORMS,
    SeparableConv2d,
    SliceableConv2d,
    SliceableConvTranspose2d,
    SliceableSeparableConv2d,
    make_norm,
)
from smallnets.gan.networks.resnet_widths import (
    MOBILE,
    channels_of,
    eight,
    group_ends,
    resnet_cost,
)

PARTS = ("down", "blocks", "up")
Taps = tuple[Tensor, list[Tensor]]


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
        config: widths, see `channels_of`.
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
        self.tap_places = (9, *(10 + last for last in group_ends(n_blocks)))
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
