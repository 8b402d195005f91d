"""The discriminators of the four families: judges that compression keeps from the teacher.

All give logits: no sigmoid at the end. Those of paired tasks read input and image, one behind the
other along channels.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from smallnets import checks
from smallnets.gan.networks.layers import NORMS, InstanceNorm, make_norm


def _check(x: Tensor, channels: int, least: int) -> None:
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(
            f"a discriminator's input must be (batch, {channels}, height, width); "
            f"got {tuple(x.shape)}"
        )
    if min(x.shape[2:]) < least:
        raise ValueError(
            f"a discriminator's input must be at least {least} pixels high and wide; "
            f"got {x.shape[2]} x {x.shape[3]}"
        )


def _check_numbers(in_channels: int, ndf: int, n_layers: int = 1, scales: int = 1) -> None:
    for name, value in (
        ("in_channels", in_channels), ("ndf", ndf), ("n_layers", n_layers), ("scales", scales),
    ):  # fmt: skip
        checks.whole(name, value, 1)


class PatchDiscriminator(nn.Module):
    """PatchGAN: a logit for every patch, of 70 x 70 pixels with three layers (pix2pix, CycleGAN).

    Args:
        in_channels: 6 for pairs of colour images, 3 for images alone.
        ndf: width of the first layer, doubled up to eight times.
        n_layers: convolutions of stride 2.
        norm: behind all but the first and the last convolution, "instance" (published) or "batch".
    """

    def __init__(
        self, in_channels: int = 6, ndf: int = 64, n_layers: int = 3, norm: str = "instance"
    ) -> None:
        super().__init__()
        _check_numbers(in_channels, ndf, n_layers)
        checks.one_of("norm", norm, NORMS)
        self.in_channels, self.least = in_channels, 3 * 2**n_layers
        layers: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = ndf
        for layer in range(1, n_layers + 1):
            before, width = width, ndf * min(2**layer, 8)
            stride = 2 if layer < n_layers else 1
            layers += [
                nn.Conv2d(before, width, 4, stride, 1, bias=norm == "instance"),
                make_norm(norm, width),
                nn.LeakyReLU(0.2),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> logits (batch, 1, rows, columns).

        Raises:
            ValueError: other channels, or an image without a whole patch.
        """
        _check(x, self.in_channels, self.least)
        logits: Tensor = self.model(x)
        return logits


class PixelDiscriminator(nn.Module):
    """A logit for every pixel, from 1 x 1 convolutions.

    Args:
        in_channels: of its input.
        ndf: width.
        norm: behind the second convolution.
    """

    def __init__(self, in_channels: int = 6, ndf: int = 64, norm: str = "instance") -> None:
        super().__init__()
        _check_numbers(in_channels, ndf)
        checks.one_of("norm", norm, NORMS)
        bias, self.in_channels = norm == "instance", in_channels
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, ndf, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            make_norm(norm, 2 * ndf),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> logits (batch, 1, height, width)."""
        _check(x, self.in_channels, 2)
        logits: Tensor = self.net(x)
        return logits


def _half(x: Tensor) -> Tensor:
    """The next level of a pyramid; what lies beyond the edge does not count."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


class SPADEDiscriminator(nn.Module):
    """The multi-scale discriminator of GauGAN, which gives the features of all its layers.

    Args:
        in_channels: label map, edges and image.
        ndf: width of the first layer, doubled up to 512.
        n_layers: convolutions before the last; the last of them has stride 1.
        scales: copies, each on an image of half the sides of the one before.

    The middle convolutions have no bias, spectral norm, and an instance norm behind.
    """

    def __init__(
        self, in_channels: int = 39, ndf: int = 64, n_layers: int = 4, scales: int = 2
    ) -> None:
        super().__init__()
        _check_numbers(in_channels, ndf, n_layers, scales)
        self.in_channels, self.scales = in_channels, scales
        # sides of three pixels keep instance norms from single ones
        self.least = 2 ** (scales - 1) * 3
        for scale in range(scales):
            self.add_module(f"discriminator_{scale}", _ScaleOfSPADE(in_channels, ndf, n_layers))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """(batch, in_channels, height, width) -> for every scale the features of every layer, of
        which the last are the logits.

        Raises:
            ValueError: other channels, or too small an image.
        """
        _check(x, self.in_channels, self.least)
        found = []
        for scale in range(self.scales):
            found.append(self.get_submodule(f"discriminator_{scale}")(x))
            x = _half(x)
        return found


class _ScaleOfSPADE(nn.Module):
    def __init__(self, in_channels: int, ndf: int, n_layers: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(in_channels, ndf, 4, 2, 2), nn.LeakyReLU(0.2))
        self.add_module("model0", first)
        width = ndf
        for layer in range(1, n_layers):
            before, width = width, min(2 * width, 512)
            stride = 2 if layer < n_layers - 1 else 1
            conv = spectral_norm(nn.Conv2d(before, width, 4, stride, 2, bias=False))
            normed = nn.Sequential(conv, InstanceNorm(width))
            self.add_module(f"model{layer}", nn.Sequential(normed, nn.LeakyReLU(0.2)))
        self.add_module(f"model{n_layers}", nn.Sequential(nn.Conv2d(width, 1, 4, 1, 2)))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.children():
            x = layer(x)
            found.append(x)
        return found


class MUNITDiscriminator(nn.Module):
    """The multi-scale discriminator of MUNIT: reflected edges, no norm.

    Args:
        in_channels: of images.
        ndf: width of the first layer, doubled by every further one.
        n_layers: convolutions of stride 2.
        scales: copies, each on an image of half the sides of the one before.
    """

    def __init__(
        self, in_channels: int = 3, ndf: int = 64, n_layers: int = 4, scales: int = 3
    ) -> None:
        super().__init__()
        _check_numbers(in_channels, ndf, n_layers, scales)
        # at the last scale, the last convolution of stride 2 needs two pixels to reflect
        self.in_channels, self.least = in_channels, 2 ** (scales - 1) * (2**n_layers - 1) + 1
        self.cnns = nn.ModuleList(
            nn.Sequential(
                *(
                    _ReflectedConv(
                        in_channels if layer == 0 else ndf * 2 ** (layer - 1), ndf * 2**layer
                    )
                    for layer in range(n_layers)
                ),
                nn.Conv2d(ndf * 2 ** (n_layers - 1), 1, 1),
            )
            for _ in range(scales)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(batch, in_channels, height, width) -> logits (batch, 1, rows, columns) of every scale.

        Raises:
            ValueError: other channels, or too small an image.
        """
        _check(x, self.in_channels, self.least)
        found = []
        for judge in self.cnns:
            found.append(judge(x))
            x = _half(x)
        return found


class _ReflectedConv(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 4, 2, 1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(x), 0.2)
