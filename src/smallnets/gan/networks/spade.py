"""SPADE layers and residual blocks (GauGAN; Park et al., CVPR 2019): dense, mobile and sliceable.

A norm without parameters is followed by a scale and a shift for every pixel, computed from the
label map s:

    y = norm(x) (1 + gamma(s)) + beta(s),    gamma, beta = conv3(relu(conv3(s)))

In the mobile version the convolutions of gamma and beta alone are separable; those of the block and
the one that both share stay dense.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from smallnets import checks
from smallnets.gan.networks.counting import Cost, conv_cost, multiply_cost, separable_cost
from smallnets.gan.networks.layers import (
    NORMS,
    InstanceNorm,
    SeparableConv2d,
    SliceableBatchNorm2d,
    SliceableConv2d,
    SliceableSeparableConv2d,
)


class SPADE(nn.Module):
    """A norm whose scale and shift depend on the label map at every pixel.

    Args:
        channels: of what is normed.
        labels: channels of the label map.
        hidden: width of the convolution that scale and shift share.
        separable: whether those of scale and shift are.
        norm: "batch" (published, synchronised there) or "instance".
        sliceable: whether any first channels can be used.
    """

    def __init__(
        self,
        channels: int,
        labels: int,
        hidden: int,
        *,
        separable: bool = False,
        norm: str = "batch",
        sliceable: bool = False,
    ) -> None:
        super().__init__()
        checks.one_of("norm", norm, NORMS)
        self.labels, self.sliceable = labels, sliceable
        self.param_free_norm: nn.Module
        if norm == "instance":
            self.param_free_norm = InstanceNorm(channels)
        else:
            batch_norm = SliceableBatchNorm2d if sliceable else nn.BatchNorm2d
            self.param_free_norm = batch_norm(channels, affine=False)
        dense = SliceableConv2d if sliceable else nn.Conv2d
        thin = SliceableSeparableConv2d if sliceable else SeparableConv2d
        kind: Any = thin if separable else dense
        self.mlp_shared = nn.Sequential(dense(labels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = kind(hidden, channels, 3, padding=1)
        self.mlp_beta = kind(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor, hidden: int | None = None) -> Tensor:
        """Norm feature maps.

        Args:
            x: (batch, channels, height, width); if sliceable, with any first channels.
            labels: (batch, labels, ...) of any size, resized to the nearest pixel.
            hidden: width to use of the shared convolution, if sliceable.

        Returns:
            The shape of `x`.
        """
        labels = _resized(labels, x)
        conv, relu = self.mlp_shared
        if self.sliceable:
            shared = relu(conv(labels, hidden))
            gamma, beta = (self.mlp_gamma(shared, x.shape[1]), self.mlp_beta(shared, x.shape[1]))
        else:
            shared = relu(conv(labels))
            gamma, beta = self.mlp_gamma(shared), self.mlp_beta(shared)
        out: Tensor = self.param_free_norm(x) * (1 + gamma) + beta
        return out

    def published_products(self, output: Tensor) -> int:
        """The products of scales, which the published count includes."""
        return output.numel()


def _resized(labels: Tensor, x: Tensor) -> Tensor:
    """Label maps as large as feature maps; within a block once for all its norms."""
    if labels.shape[2:] == x.shape[2:]:
        return labels
    return F.interpolate(labels, size=x.shape[2:], mode="nearest")


class SPADEBlock(nn.Module):
    """Twice a norm, a leaky ReLU and a convolution, beside a shortcut.

    The shortcut is x itself, or a 1 x 1 convolution without bias of a third SPADE of x.

    Args:
        into, mid, out: channels before, between and behind the two convolutions.
        labels, hidden, separable, norm, sliceable: see `SPADE`.
        learned: whether the shortcut is a convolution; by default where `into` and `out` differ.
        spectral: spectral norm on the convolutions, as while a teacher is trained.
    """

    def __init__(
        self,
        into: int,
        mid: int,
        out: int,
        labels: int,
        hidden: int,
        *,
        separable: bool = False,
        norm: str = "batch",
        sliceable: bool = False,
        learned: bool | None = None,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self.learned = into != out if learned is None else learned
        self.sliceable = sliceable
        conv: Any = SliceableConv2d if sliceable else nn.Conv2d

        def spade(channels: int) -> SPADE:
            return SPADE(
                channels, labels, hidden, separable=separable, norm=norm, sliceable=sliceable
            )

        self.conv_0 = conv(into, mid, 3, padding=1)
        self.conv_1 = conv(mid, out, 3, padding=1)
        if self.learned:
            self.conv_s = conv(into, out, 1, bias=False)
        if spectral:
            for layer in list(self.children()):
                spectral_norm(layer)
        self.norm_0, self.norm_1 = spade(into), spade(mid)
        if self.learned:
            self.norm_s = spade(into)

    def forward(
        self, x: Tensor, labels: Tensor, channels: int | None = None, hidden: int | None = None
    ) -> Tensor:
        """(batch, into, height, width) -> (batch, out, height, width).

        Args:
            x: feature maps; if sliceable, any first channels.
            labels: label maps of any size.
            channels: if sliceable, the inner width, which is the output's, too, where the shortcut
                is learned; otherwise the output has the channels of `x`.
            hidden: if sliceable, of the SPADE layers.
        """
        mid: tuple[int | None, ...] = (channels,) if self.sliceable else ()
        out: tuple[int | None, ...] = ()
        labels = _resized(labels, x)
        if self.sliceable:
            out = (channels,) if self.learned else (x.shape[1],)
        shortcut = self.conv_s(self.norm_s(x, labels, hidden), *out) if self.learned else x
        inner = self.conv_0(F.leaky_relu(self.norm_0(x, labels, hidden), 0.2), *mid)
        added = self.conv_1(F.leaky_relu(self.norm_1(inner, labels, hidden), 0.2), *out)
        total: Tensor = shortcut + added
        return total


def spade_cost(
    pixels: int, channels: int, labels: int, hidden: int, *, separable: bool, norm: str
) -> Cost:
    """Of one SPADE layer."""
    scale = (
        separable_cost(pixels, hidden, channels, 3)
        if separable
        else conv_cost(pixels, hidden, channels, 3)
    )
    normed = multiply_cost(pixels * channels) if norm == "instance" else Cost()
    return (
        conv_cost(pixels, labels, hidden, 3) + scale * 2 + normed + multiply_cost(pixels * channels)
    )


def block_cost(
    pixels: int, into: int, mid: int, out: int, labels: int, hidden: int, *,
    learned: bool, separable: bool, norm: str,
) -> Cost:  # fmt: skip
    """Of one SPADE block."""

    def spade(channels: int) -> Cost:
        return spade_cost(pixels, channels, labels, hidden, separable=separable, norm=norm)

    body = (
        spade(into) + conv_cost(pixels, into, mid, 3) + spade(mid) + conv_cost(pixels, mid, out, 3)
    )
    if not learned:
        return body
    return body + spade(into) + conv_cost(pixels, into, out, 1, bias=False)


@torch.no_grad()
def fold_spectral_norm(network: nn.Module) -> nn.Module:
    """Bake spectral norms into plain weights, in place: what a teacher needs before compression,
    as slices of a weight have other spectral norms than the whole.

    Returns:
        The network, which computes in evaluation mode what it did.
    """
    was = network.training
    network.eval()  # in training mode every look at a weight would be a power iteration
    for module in network.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network.train(was)
