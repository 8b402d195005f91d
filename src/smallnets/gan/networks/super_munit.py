"""The supernet of MUNIT generators: one set of weights, of which a configuration takes slices.

Every AdaIN takes from the MLP a block of means, then one of deviations; a narrow one takes the
beginning of both, so that an exported MLP gathers those rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smallnets.gan.networks.configs import Config, check_config
from smallnets.gan.networks.counting import Cost
from smallnets.gan.networks.layers import copy_first
from smallnets.gan.networks.munit import MUNITGenerator
from smallnets.gan.networks.munit_cost import munit_cost
from smallnets.gan.networks.resnet import Taps


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
