"""The supernet of ResNet generators: one set of weights, of which a configuration takes slices."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from smallnets.gan.networks.configs import Config, check_config
from smallnets.gan.networks.counting import Cost
from smallnets.gan.networks.layers import copy_first
from smallnets.gan.networks.resnet import ResNetGenerator, Taps
from smallnets.gan.networks.resnet_widths import MOBILE, channels_of, eight, resnet_cost


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
