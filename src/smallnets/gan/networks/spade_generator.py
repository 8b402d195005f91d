"""The generator of GauGAN: full, mobile, as a supernet, and exported.

    labels at 1/2^5 or 1/2^6 of the size -> conv3 -> 16n
    | head_0, G_middle_0, G_middle_1: 16n -> 16n | up_0 -> 8n | up_1 -> 4n | up_2 -> 2n | up_3 -> n
    | leaky ReLU, conv3 -> 3, tanh

Sides are doubled (nearest pixel) between the blocks. A configuration of eight numbers c:

    c0 the residual width 16 c0 | c1, c2, c3 inner widths 16 c of the first three blocks
    | c4 .. c7 outputs 8c, 4c, 2c, c of up_0 .. up_3

and every block's SPADE layers have hidden width 2 times its own c. The supernet's norms are
BatchNorms that all widths share: calibrate before a configuration is judged.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.gan.networks.configs import Config, as_config, check_config
from smallnets.gan.networks.counting import Cost, conv_cost, total
from smallnets.gan.networks.layers import NORMS, SliceableConv2d, copy_first
from smallnets.gan.networks.resnet import Taps
from smallnets.gan.networks.spade import SPADEBlock, block_cost

UPSAMPLINGS = {"normal": 5, "more": 6}  # how often the sides are doubled
BLOCKS = ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3")
TAPPED = ("head_0", "G_middle_1", "up_1")
FACTORS = (16, 16, 16, 8, 4, 2, 1)  # of a block's own width in the configuration


class SPADEGenerator(nn.Module):
    """The GauGAN generator, at one width or with the widths of a configuration.

    Args:
        labels: channels of the label map: 35 classes and the edges of instances in Cityscapes.
        out_channels: of images.
        ngf: width where no configuration is given.
        upsampling: "normal", sides doubled 5 times, or "more", 6 times (Cityscapes).
        separable: the mobile generator.
        norm: "batch" (published) or "instance".
        config: eight widths, see the module.
        spectral: spectral norm in the blocks; `fold_spectral_norm` takes it away.

    Raises:
        ValueError: numbers below 1, an unknown upsampling or norm, or another number of widths.
    """

    sliceable = False

    def __init__(
        self,
        labels: int = 36,
        out_channels: int = 3,
        ngf: int = 64,
        *,
        upsampling: str = "more",
        separable: bool = False,
        norm: str = "batch",
        config: Sequence[int] | None = None,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("labels", labels), ("out_channels", out_channels), ("ngf", ngf)):
            checks.whole(name, value, 1)
        checks.one_of("upsampling", upsampling, UPSAMPLINGS)
        checks.one_of("norm", norm, NORMS)
        given = (ngf,) * 8 if config is None else as_config(config)
        self.config = check_config(given, given if len(given) == 8 else (ngf,) * 8)
        self.labels, self.out_channels, self.upsampling = labels, out_channels, upsampling
        self.separable, self.norm = separable, norm
        c = self.config
        conv: Any = SliceableConv2d if self.sliceable else nn.Conv2d
        self.fc = conv(labels, 16 * c[0], 3, padding=1)
        into = 16 * c[0]
        for name, own, factor in zip(BLOCKS, c[1:], FACTORS, strict=True):
            learned = name.startswith("up")
            out = factor * own if learned else into
            # the full network's inner width is the smaller one; in a slice it is the output's
            mid = factor * own
            block = SPADEBlock(
                into, mid, out, labels, 2 * own, separable=separable, norm=norm,
                sliceable=self.sliceable, learned=learned, spectral=spectral,
            )  # fmt: skip
            self.add_module(name, block)
            into = out
        self.conv_img = conv(into, out_channels, 3, padding=1)

    def tap_channels(self) -> list[int]:
        """Channels of the feature maps that `forward` gives as taps."""
        return _tap_channels(self.config)

    def _checked(self, labels: Tensor) -> Tensor:
        factor = 2 ** UPSAMPLINGS[self.upsampling]
        if labels.dim() != 4 or labels.shape[1] != self.labels:
            raise ValueError(
                f"label maps must be (batch, {self.labels}, height, width); "
                f"got {tuple(labels.shape)}"
            )
        height, width = labels.shape[2:]
        if height % factor or width % factor or not height * width:
            raise ValueError(
                f"height and width must be multiples of {factor}; got {height} x {width}"
            )
        return labels

    def forward(self, labels: Tensor, taps: bool = False) -> Tensor | Taps:
        """Label maps -> images in [-1, 1].

        Args:
            labels: (batch, labels, height, width), one-hot, see `one_hot_labels`; sides multiples
                of 2^5 or 2^6.
            taps: whether the features that are distilled come as well: the outputs of head_0,
                G_middle_1 and up_1.

        Raises:
            ValueError: other shapes.
        """
        return self._run(self._checked(labels), None, taps)

    def _run(self, labels: Tensor, config: Config | None, taps: bool) -> Tensor | Taps:
        factor = 2 ** UPSAMPLINGS[self.upsampling]
        small = (labels.shape[2] // factor, labels.shape[3] // factor)
        first = () if config is None else (16 * config[0],)
        x = self.fc(F.interpolate(labels, size=small, mode="nearest"), *first)
        tapped = []
        for place, (name, times) in enumerate(zip(BLOCKS, FACTORS, strict=True)):
            if place and (name != "G_middle_1" or self.upsampling == "more"):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            own = None if config is None else config[1 + place]
            widths = () if own is None else (times * own, 2 * own)
            x = self.get_submodule(name)(x, labels, *widths)
            if taps and name in TAPPED:
                tapped.append(x)
        image = torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))
        return (image, tapped) if taps else image

    def cost(self, size: tuple[int, int]) -> Cost:
        """Of one image of (height, width)."""
        return spade_generator_cost(
            self.config, size, self.labels, self.out_channels, upsampling=self.upsampling,
            separable=self.separable, norm=self.norm,
        )  # fmt: skip


class SuperSPADEGenerator(SPADEGenerator):
    """A GauGAN generator with the weights of all narrower ones: a configuration chooses slices.

    Args:
        labels, out_channels, ngf, upsampling, separable, norm: as `SPADEGenerator` has them; by
            default it is mobile.
    """

    sliceable = True

    def __init__(
        self,
        labels: int = 36,
        out_channels: int = 3,
        ngf: int = 64,
        *,
        upsampling: str = "more",
        separable: bool = True,
        norm: str = "batch",
    ) -> None:
        super().__init__(
            labels, out_channels, ngf, upsampling=upsampling, separable=separable, norm=norm
        )

    @property
    def full_config(self) -> Config:
        """The widest configuration."""
        return self.config

    def check(self, config: Sequence[int] | None) -> Config:
        """A configuration as a tuple; None is the full one.

        Raises:
            ValueError: not eight numbers, or a width outside 1..ngf.
        """
        return self.full_config if config is None else check_config(config, self.config)

    def tap_channels(self, config: Sequence[int] | None = None) -> list[int]:
        """Channels of the taps at a configuration."""
        return _tap_channels(self.check(config))

    def forward(  # type: ignore[override]
        self, labels: Tensor, config: Sequence[int] | None = None, taps: bool = False
    ) -> Tensor | Taps:
        """Label maps -> images, by the first channels of every layer.

        Args:
            labels: see `SPADEGenerator.forward`.
            config: eight widths; by default all channels.
            taps: see there.

        Raises:
            ValueError: other shapes, or a configuration that does not fit.
        """
        return self._run(self._checked(labels), self.check(config), taps)

    @torch.no_grad()
    def export(self, config: Sequence[int]) -> SPADEGenerator:
        """A generator of its own with copies of a configuration's weights and statistics, which
        gives the same images, bit for bit, in evaluation mode.
        """
        narrow = SPADEGenerator(
            self.labels, self.out_channels, upsampling=self.upsampling,
            separable=self.separable, norm=self.norm, config=self.check(config),
        )  # fmt: skip
        like = next(self.parameters())
        copy_first(narrow.to(like.device, like.dtype), self)
        return narrow.train(self.training)

    def cost(  # type: ignore[override]
        self, config: Sequence[int] | None, size: tuple[int, int]
    ) -> Cost:
        """Of one image of (height, width) at a configuration."""
        return spade_generator_cost(
            self.check(config), size, self.labels, self.out_channels, upsampling=self.upsampling,
            separable=self.separable, norm=self.norm,
        )  # fmt: skip


def _tap_channels(config: Config) -> list[int]:
    return [16 * config[0], 16 * config[0], 4 * config[5]]


def spade_generator_cost(
    config: Sequence[int],
    size: tuple[int, int],
    labels: int = 36,
    out_channels: int = 3,
    *,
    upsampling: str = "more",
    separable: bool = True,
    norm: str = "batch",
) -> Cost:
    """Multiply-accumulates and parameters of a GauGAN generator in closed form.

    Args:
        config: eight widths.
        size: height and width of the image.
        labels, out_channels, upsampling, separable, norm: as in the generator.
    """
    factor = 2 ** UPSAMPLINGS[upsampling]
    pixels = (size[0] // factor) * (size[1] // factor)
    into = 16 * config[0]
    costs = [conv_cost(pixels, labels, into, 3)]
    for place, (name, own, times) in enumerate(zip(BLOCKS, config[1:], FACTORS, strict=True)):
        if place and (name != "G_middle_1" or upsampling == "more"):
            pixels *= 4
        learned = name.startswith("up")
        out = times * own if learned else into
        costs.append(
            block_cost(
                pixels, into, times * own, out, labels, 2 * own, learned=learned,
                separable=separable, norm=norm,
            )
        )  # fmt: skip
        into = out
    costs.append(conv_cost(pixels, into, out_channels, 3))
    return total(costs)
