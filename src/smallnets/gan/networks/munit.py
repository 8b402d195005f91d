"""The generator of MUNIT (Huang et al., ECCV 2018): full, mobile, as a supernet, and exported.

    content encoder  conv7 -> n | conv4 s2 -> 2n | conv4 s2 -> 4n | residual blocks, instance norms
    style encoder    conv7 -> n | four conv4 s2 -> 2n, 4n, 4n, 4n | mean over pixels | 1x1 -> style
    MLP              style -> 256 -> 256 -> mean and deviation for every AdaIN
    decoder          residual blocks with AdaIN | twice: sides doubled, conv5, LayerNorm | conv7 -> 3

All edges are reflected. In the mobile version the residual blocks and the decoder's up-convolutions
are separable. A configuration of ten numbers c:

    c0 style encoder | c1, 2 c2, 4 c3 convolutions of the content encoder | 4 c4, 4 c5 hidden width
    of the first and the second half of its blocks | 4 c6, 4 c7 the same in the decoder
    | 2 c8, c9 up-convolutions

Every AdaIN takes from the MLP a block of means, then one of deviations; a narrow one takes the
beginning of both, so that an exported MLP gathers those rows.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.networks.configs import Config, check_config
from smallnets.gan.networks.counting import (
    Cost,
    conv_cost,
    linear_cost,
    multiply_cost,
    norm_cost,
    separable_cost,
    total,
)
from smallnets.gan.networks.layers import (
    AdaIN,
    InstanceNorm,
    LayerNorm,
    SeparableConv2d,
    SliceableConv2d,
    SliceableSeparableConv2d,
    copy_first,
)
from smallnets.gan.networks.resnet import Taps

STYLE_FACTORS = (1, 2, 4, 4, 4)


class ConvBlock(nn.Module):
    """Reflected edges, convolution, norm, activation; as MUNIT builds everything.

    Args:
        into, out, kernel, stride, padding: of the convolution.
        norm: "instance", "layer", "adain" or "none".
        activation: "relu", "tanh" or "none".
        separable, sliceable: kind of convolution.
    """

    def __init__(
        self,
        into: int,
        out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        norm: str = "none",
        activation: str = "relu",
        separable: bool = False,
        sliceable: bool = False,
    ) -> None:
        super().__init__()
        dense = SliceableConv2d if sliceable else nn.Conv2d
        thin = SliceableSeparableConv2d if sliceable else SeparableConv2d
        kind: Any = thin if separable else dense
        self.pad = nn.ReflectionPad2d(padding)
        self.conv = kind(into, out, kernel, stride)
        if norm != "none":
            norms = {"instance": InstanceNorm(out), "layer": LayerNorm(out), "adain": AdaIN()}
            self.norm: nn.Module | None = norms[norm]
        else:
            self.norm = None
        activations = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "none": nn.Identity()}
        self.activation, self.out, self.sliceable = activations[activation], out, sliceable

    def forward(
        self, x: Tensor, width: int | None = None, style: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """(batch, into, height, width) -> (batch, out, ...).

        Args:
            x: feature maps.
            width: output channels, if sliceable.
            style: means and deviations (batch, `out`) for AdaIN, of which the first are used.
        """
        x = self.conv(self.pad(x), width) if self.sliceable else self.conv(self.pad(x))
        if style is not None:
            mean, std = style
            x = self.norm(x, mean[:, : x.shape[1]], std[:, : x.shape[1]])  # type: ignore[misc]
        elif self.norm is not None:
            x = self.norm(x)
        out: Tensor = self.activation(x)
        return out


class _ResBlock(nn.Module):
    def __init__(self, channels: int, hidden: int, norm: str, **kind: bool) -> None:
        super().__init__()
        self.model = nn.Sequential(
            ConvBlock(channels, hidden, 3, 1, 1, norm=norm, **kind),
            ConvBlock(hidden, channels, 3, 1, 1, norm=norm, activation="none", **kind),
        )

    def forward(
        self, x: Tensor, hidden: int | None, styles: Sequence[tuple[Tensor, Tensor] | None]
    ) -> Tensor:
        first, second = self.model
        out: Tensor = x + second(first(x, hidden, styles[0]), x.shape[1], styles[1])
        return out


class _Holder(nn.Module):
    """Layers under the name that they have in released checkpoints."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)


class _Linear(nn.Module):
    def __init__(self, into: int, out: int, *, relu: bool) -> None:
        super().__init__()
        self.fc, self.relu = nn.Linear(into, out), relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        return x.relu() if self.relu else x


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
        given = (ngf,) * 10 if config is None else config
        self.config = c = check_config(given, tuple(given) if len(given) == 10 else (ngf,) * 10)
        self.in_channels, self.style_dim, self.mlp_dim = in_channels, style_dim, mlp_dim
        self.n_res, self.separable = n_res, separable
        dense: dict[str, Any] = {"sliceable": self.sliceable}
        thin: dict[str, Any] = {**dense, "separable": separable}
        conv: Any = SliceableConv2d if self.sliceable else nn.Conv2d
        s = [factor * c[0] for factor in STYLE_FACTORS]
        self.enc_style = _Holder(
            ConvBlock(in_channels, s[0], 7, 1, 3, **dense),
            *(ConvBlock(a, b, 4, 2, 1, **dense) for a, b in zip(s, s[1:], strict=False)),
            nn.AdaptiveAvgPool2d(1),
            conv(s[-1], style_dim, 1),
        )
        stream = 4 * c[3]
        self.enc_content = _Holder(
            ConvBlock(in_channels, c[1], 7, 1, 3, norm="instance", **dense),
            ConvBlock(c[1], 2 * c[2], 4, 2, 1, norm="instance", **dense),
            ConvBlock(2 * c[2], stream, 4, 2, 1, norm="instance", **dense),
            _Holder(*(_ResBlock(stream, h, "instance", **thin) for h in self._hidden(c, 4))),
        )
        hidden = self._hidden(c, 6)
        self.dec = _Holder(
            _Holder(*(_ResBlock(stream, h, "adain", **thin) for h in hidden)),
            nn.Upsample(scale_factor=2),
            ConvBlock(stream, 2 * c[8], 5, 1, 2, norm="layer", **thin),
            nn.Upsample(scale_factor=2),
            ConvBlock(2 * c[8], c[9], 5, 1, 2, norm="layer", **thin),
            ConvBlock(c[9], in_channels, 7, 1, 3, activation="tanh", **dense),
        )
        self.adain_widths = [width for h in hidden for width in (h, stream)]
        self.mlp = _Holder(
            _Linear(style_dim, mlp_dim, relu=True),
            _Linear(mlp_dim, mlp_dim, relu=True),
            _Linear(mlp_dim, 2 * sum(self.adain_widths), relu=False),
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

    def forward(
        self, x: Tensor, taps: bool = False, style: Tensor | None = None
    ) -> Tensor | Taps:
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


class SuperMUNITGenerator(MUNITGenerator):
    """A MUNIT generator with the weights of all narrower ones: a configuration chooses slices.

    Args:
        in_channels, ngf, style_dim, mlp_dim, n_res, separable: as `MUNITGenerator` has them; by
            default it is mobile.
    """

    sliceable = True

    def __init__(
        self,
        in_channels: int = 3,
        ngf: int = 64,
        *,
        style_dim: int = 8,
        mlp_dim: int = 256,
        n_res: int = 4,
        separable: bool = True,
    ) -> None:
        super().__init__(
            in_channels, ngf, style_dim=style_dim, mlp_dim=mlp_dim, n_res=n_res,
            separable=separable,
        )  # fmt: skip

    @property
    def full_config(self) -> Config:
        """The widest configuration."""
        return self.config

    def check(self, config: Sequence[int] | None) -> Config:
        """A configuration as a tuple; None is the full one.

        Raises:
            ValueError: not ten numbers, or a width outside 1..ngf.
        """
        return self.full_config if config is None else check_config(config, self.config)

    def tap_channels(self, config: Sequence[int] | None = None) -> list[int]:
        """Channels of the content code at a configuration."""
        return [4 * self.check(config)[3]]

    def encode(  # type: ignore[override]
        self, x: Tensor, config: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images -> content (batch, 4 c3, height / 4, width / 4) and style (batch, style, 1, 1)."""
        return self.content(x, config), self.style(x, config)

    def content(  # type: ignore[override]
        self, x: Tensor, config: Sequence[int] | None = None
    ) -> Tensor:
        """Images -> content, at a configuration."""
        return self._content(self._checked(x, 8), self.check(config))

    def style(  # type: ignore[override]
        self, x: Tensor, config: Sequence[int] | None = None
    ) -> Tensor:
        """Images -> style, at a configuration."""
        return self._style(self._checked(x, 16), self.check(config))

    def decode(  # type: ignore[override]
        self, content: Tensor, style: Tensor, config: Sequence[int] | None = None
    ) -> Tensor:
        """Content and style -> images, at a configuration."""
        return self._decode(content, style, self.check(config))

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        config: Sequence[int] | None = None,
        taps: bool = False,
        style: Tensor | None = None,
    ) -> Tensor | Taps:
        """Images -> images of the same content, by the first channels of every layer.

        Args:
            x: (batch, in_channels, height, width), sides multiples of 4.
            config: ten widths; by default all channels.
            taps: whether the content code comes as well.
            style: see `MUNITGenerator.forward`.

        Raises:
            ValueError: other shapes, or a configuration that does not fit.
        """
        config = self.check(config)
        content = self.content(x, config)
        given = self.style(x, config) if style is None else style
        image = self.decode(content, given, config)
        return (image, [content]) if taps else image

    @torch.no_grad()
    def export(self, config: Sequence[int]) -> MUNITGenerator:
        """A generator of its own with copies of a configuration's weights: slices, and of the MLP
        the rows of the means and deviations in use. It gives the same images, bit for bit.
        """
        narrow = MUNITGenerator(
            self.in_channels, style_dim=self.style_dim, mlp_dim=self.mlp_dim, n_res=self.n_res,
            separable=self.separable, config=self.check(config),
        )  # fmt: skip
        like = next(self.parameters())
        copy_first(narrow.to(like.device, like.dtype), self)
        rows, start = [], 0
        for full, width in zip(self.adain_widths, narrow.adain_widths, strict=True):
            for _ in range(2):  # means, then deviations
                rows.append(torch.arange(start, start + width, device=like.device))
                start += full
        whole, part = self.mlp.model[2].fc, narrow.mlp.model[2].fc
        part.weight.copy_(whole.weight[torch.cat(rows)])
        part.bias.copy_(whole.bias[torch.cat(rows)])
        return narrow.train(self.training)

    def cost(  # type: ignore[override]
        self,
        config: Sequence[int] | None,
        size: tuple[int, int],
        *,
        style_encoder: bool = True,
    ) -> Cost:
        """Of one image of (height, width) at a configuration."""
        return munit_cost(
            self.check(config), size, self.in_channels, style_dim=self.style_dim,
            mlp_dim=self.mlp_dim, n_res=self.n_res, separable=self.separable,
            style_encoder=style_encoder,
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


def munit_cost(
    config: Sequence[int],
    size: tuple[int, int],
    in_channels: int = 3,
    *,
    style_dim: int = 8,
    mlp_dim: int = 256,
    n_res: int = 4,
    separable: bool = True,
    style_encoder: bool = True,
) -> Cost:
    """Multiply-accumulates and parameters of a MUNIT generator in closed form.

    Args:
        config: ten widths.
        size: height and width of the image.
        in_channels, style_dim, mlp_dim, n_res, separable: as in the generator.
        style_encoder: whether a style is encoded as well; its parameters count in any case.
    """
    c, pixels = config, size[0] * size[1]
    quarter, stream = pixels // 16, 4 * config[3]

    def thin(pixels: int, into: int, out: int, kernel: int) -> Cost:
        kind = separable_cost if separable else conv_cost
        return kind(pixels, into, out, kernel)

    def block(hidden: int) -> Cost:
        return thin(quarter, stream, hidden, 3) + thin(quarter, hidden, stream, 3)

    s = [in_channels, *(factor * c[0] for factor in STYLE_FACTORS)]
    styles = [conv_cost(pixels, s[0], s[1], 7)]
    rows, columns = size
    for into, out in zip(s[1:], s[2:], strict=False):
        rows, columns = rows // 2, columns // 2
        styles.append(conv_cost(rows * columns, into, out, 4))
    style = total([*styles, multiply_cost(s[-1]), conv_cost(1, s[-1], style_dim, 1)])
    if not style_encoder:
        style = Cost(parameters=style.parameters)
    half = n_res // 2
    content = total(
        [
            conv_cost(pixels, in_channels, c[1], 7),
            norm_cost(pixels, c[1]),
            conv_cost(pixels // 4, c[1], 2 * c[2], 4),
            norm_cost(pixels // 4, 2 * c[2]),
            conv_cost(quarter, 2 * c[2], stream, 4),
            norm_cost(quarter, stream),
            *(
                (block(4 * c[place]) + norm_cost(quarter, 4 * c[place] + stream)) * half
                for place in (4, 5)
            ),
        ]
    )
    styled = 2 * half * sum(4 * c[place] + stream for place in (6, 7))
    decoder = total(
        [
            *(block(4 * c[place]) * half for place in (6, 7)),
            multiply_cost(2 * n_res),  # one for each AdaIN
            thin(pixels // 4, stream, 2 * c[8], 5),
            multiply_cost(pixels // 4 * 2 * c[8] + 1) + Cost(parameters=4 * c[8]),
            thin(pixels, 2 * c[8], c[9], 5),
            multiply_cost(pixels * c[9] + 1) + Cost(parameters=2 * c[9]),
            conv_cost(pixels, c[9], in_channels, 7),
        ]
    )
    mlp = (
        linear_cost(style_dim, mlp_dim)
        + linear_cost(mlp_dim, mlp_dim)
        + linear_cost(mlp_dim, styled)
    )
    return style + content + decoder + mlp
