"""The generator of MUNIT (Huang et al., ECCV 2018): full, mobile, and of any widths.

    content encoder  conv7 -> n | conv4 s2 -> 2n | conv4 s2 -> 4n | residual blocks, instance norms
    style encoder    conv7 -> n | four conv4 s2 -> 2n, 4n, 4n, 4n | mean over pixels | 1x1 -> style
    MLP              style -> 256 -> 256 -> mean and deviation for every AdaIN
    decoder          residual blocks, AdaIN | twice: sides doubled, conv5, LayerNorm | conv7 -> 3

All edges are reflected. In the mobile version the residual blocks and the decoder's up-convolutions
are separable. A configuration of ten numbers c:

    c0 style encoder | c1, 2 c2, 4 c3 convolutions of the content encoder | 4 c4, 4 c5 hidden width
    of the first and the second half of its blocks | 4 c6, 4 c7 the same in the decoder
    | 2 c8, c9 up-convolutions
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.networks.configs import Config, as_config, check_config
from smallnets.gan.networks.counting import Cost
from smallnets.gan.networks.layers import SliceableConv2d
from smallnets.gan.networks.munit_blocks import ConvBlock, DenseLayer, Holder, ResBlock
from smallnets.gan.networks.munit_cost import STYLE_FACTORS, munit_cost
from smallnets.gan.networks.resnet import Taps


class MUNITGenerator(nn.Module):
    """The MUNIT generator of one domain, at one width or with the widths of a configuration.

    Args:
        in_channels: of images, read and written.
        ngf: width where no configuration is given.
        style_dim, mlp_dim: length of the style code, width of the MLP.
        n_res: residual blocks of the content encoder, and of the decoder; even.
        separable: the mobile generator.
        config: ten widths, see the module.

    Raises:
        ValueError: numbers below 1, an odd `n_res`, or another number of widths.
    """

    sliceable = False

    def __init__(
        self,
        in_channels: int = 3,
        ngf: int = 64,
        *,
        style_dim: int = 8,
        mlp_dim: int = 256,
        n_res: int = 4,
        separable: bool = False,
        config: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels), ("ngf", ngf), ("style_dim", style_dim),
            ("mlp_dim", mlp_dim), ("n_res", n_res),
        ):  # fmt: skip
            checks.whole(name, value, 1)
        if n_res % 2:
            raise ValueError(f"n_res must be even: halves have widths of their own; got {n_res}")
        given = (ngf,) * 10 if config is None else as_config(config)
        self.config = c = check_config(given, given if len(given) == 10 else (ngf,) * 10)
        self.in_channels, self.style_dim, self.mlp_dim = in_channels, style_dim, mlp_dim
        self.n_res, self.separable = n_res, separable
        dense: dict[str, Any] = {"sliceable": self.sliceable}
        thin: dict[str, Any] = {**dense, "separable": separable}
        conv: Any = SliceableConv2d if self.sliceable else nn.Conv2d
        s = [factor * c[0] for factor in STYLE_FACTORS]
        self.enc_style = Holder(
            ConvBlock(in_channels, s[0], 7, 1, 3, **dense),
            *(ConvBlock(a, b, 4, 2, 1, **dense) for a, b in pairwise(s)),
            nn.AdaptiveAvgPool2d(1),
            conv(s[-1], style_dim, 1),
        )
        stream = 4 * c[3]
        self.enc_content = Holder(
            ConvBlock(in_channels, c[1], 7, 1, 3, norm="instance", **dense),
            ConvBlock(c[1], 2 * c[2], 4, 2, 1, norm="instance", **dense),
            ConvBlock(2 * c[2], stream, 4, 2, 1, norm="instance", **dense),
            Holder(*(ResBlock(stream, h, "instance", **thin) for h in self._hidden(c, 4))),
        )
        hidden = self._hidden(c, 6)
        self.dec = Holder(
            Holder(*(ResBlock(stream, h, "adain", **thin) for h in hidden)),
            nn.Upsample(scale_factor=2),
            ConvBlock(stream, 2 * c[8], 5, 1, 2, norm="layer", **thin),
            nn.Upsample(scale_factor=2),
            ConvBlock(2 * c[8], c[9], 5, 1, 2, norm="layer", **thin),
            ConvBlock(c[9], in_channels, 7, 1, 3, activation="tanh", **dense),
        )
        self.adain_widths = [width for h in hidden for width in (h, stream)]
        self.mlp = Holder(
            DenseLayer(style_dim, mlp_dim, relu=True),
            DenseLayer(mlp_dim, mlp_dim, relu=True),
            DenseLayer(mlp_dim, 2 * sum(self.adain_widths), relu=False),
        )

    def _hidden(self, config: Config, place: int) -> list[int]:
        """Hidden widths of residual blocks: a half as `place` says, the other as the next one."""
        half = self.n_res // 2
        return [4 * config[place]] * half + [4 * config[place + 1]] * half

    def tap_channels(self) -> list[int]:
        """Channels of the content code."""
        return [4 * self.config[3]]

    def _checked(self, x: Tensor, least: int) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images must be (batch, {self.in_channels}, height, width); got {tuple(x.shape)}"
            )
        height, width = x.shape[2:]
        if height % 4 or width % 4 or min(height, width) < least:
            raise ValueError(
                f"height and width must be multiples of 4, and at least {least}; "
                f"got {height} x {width}"
            )
        return x

    def _widths(self, config: Config | None, *places: tuple[int, int]) -> list[int | None]:
        return [None if config is None else factor * config[place] for place, factor in places]

    def _content(self, x: Tensor, config: Config | None) -> Tensor:
        *convs, blocks = self.enc_content.model
        widths = self._widths(config, (1, 1), (2, 2), (3, 4))
        for layer, width in zip(convs, widths, strict=True):
            x = layer(x, width)
        hidden = [None] * self.n_res if config is None else self._hidden(config, 4)
        for block, width in zip(blocks.model, hidden, strict=True):
            x = block(x, width, (None, None))
        return x

    def _style(self, x: Tensor, config: Config | None) -> Tensor:
        *convs, pool, last = self.enc_style.model
        for layer, factor in zip(convs, STYLE_FACTORS, strict=True):
            x = layer(x, None if config is None else factor * config[0])
        style: Tensor = last(pool(x))
        return style

    def _decode(self, content: Tensor, style: Tensor, config: Config | None) -> Tensor:
        if style.dim() not in (2, 4) or style.flatten(1).shape != (len(content), self.style_dim):
            raise ValueError(
                f"styles must be ({len(content)}, {self.style_dim}) or with two more axes of "
                f"length 1; got {tuple(style.shape)}"
            )
        values = self.mlp.model(style.flatten(1)).split(
            [width for full in self.adain_widths for width in (full, full)], dim=1
        )
        styles = list(zip(values[::2], values[1::2], strict=True))  # means, deviations
        blocks, *rest = self.dec.model
        hidden = [None] * self.n_res if config is None else self._hidden(config, 6)
        x = content
        for place, (block, width) in enumerate(zip(blocks.model, hidden, strict=True)):
            x = block(x, width, styles[2 * place : 2 * place + 2])
        up1, conv1, up2, conv2, last = rest
        widths = self._widths(config, (8, 2), (9, 1))
        image: Tensor = last(conv2(up2(conv1(up1(x), widths[0])), widths[1]))
        return image

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> content (batch, 4n, height / 4, width / 4) and style (batch, style, 1, 1).

        Raises:
            ValueError: other channels, or sides that are no multiples of 4 or below 16.
        """
        x = self._checked(x, 16)
        return self._content(x, None), self._style(x, None)

    def content(self, x: Tensor) -> Tensor:
        """Images, of at least 8 x 8 pixels, -> content."""
        return self._content(self._checked(x, 8), None)

    def style(self, x: Tensor) -> Tensor:
        """Images, of at least 16 x 16 pixels, -> style."""
        return self._style(self._checked(x, 16), None)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Content and style -> images in [-1, 1].

        Raises:
            ValueError: styles of another length or number.
        """
        return self._decode(content, style, None)

    def forward(self, x: Tensor, taps: bool = False, style: Tensor | None = None) -> Tensor | Taps:
        """Images -> images in [-1, 1] of the same content.

        Args:
            x: (batch, in_channels, height, width), sides multiples of 4.
            taps: whether the content code, which is distilled, comes as well.
            style: (batch, style) or (batch, style, 1, 1); by default that of `x` itself.

        Raises:
            ValueError: other shapes.
        """
        content = self.content(x)
        image = self.decode(content, self.style(x) if style is None else style)
        return (image, [content]) if taps else image

    def cost(self, size: tuple[int, int], *, style_encoder: bool = True) -> Cost:
        """Of one image of (height, width), with or without encoding a style."""
        return munit_cost(
            self.config, size, self.in_channels, style_dim=self.style_dim, mlp_dim=self.mlp_dim,
            n_res=self.n_res, separable=self.separable, style_encoder=style_encoder,
        )  # fmt: skip


def assemble(source: MUNITGenerator, target: MUNITGenerator) -> MUNITGenerator:
    """One generator for one direction: what encodes the source's content, and the style encoder,
    MLP and decoder of the target; copies of both.

    Raises:
        ValueError: content codes that do not fit.
    """
    if source.tap_channels() != target.tap_channels():
        raise ValueError(
            f"content codes must have equal channels; "
            f"got {source.tap_channels()[0]} and {target.tap_channels()[0]}"
        )
    both = copy.deepcopy(target)
    both.enc_content = copy.deepcopy(source.enc_content)
    both.config = (*target.config[:1], *source.config[1:6], *target.config[6:])
    return both
