"""Depthwise separable convolutions made from dense ones.

A depthwise kernel dw (I, h, w) and a 1x1 convolution pw (O, I) in a row are the dense convolution
w[o, i] = pw[o, i] dw[i]: an outer product in every input channel. The nearest one to a dense weight
keeps the first singular value of each channel's matrix (O, h w); with more kernels a channel, as
many (network decoupling, Guo et al. 2018).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from smallnets.checks import whole
from smallnets.structure.cp import check_one_group
from smallnets.structure.layers import (
    Cost,
    check_layer,
    conv_options,
    dense_conv,
    filled,
    wide_weight,
    with_bias,
)
from smallnets.structure.low_rank import low_rank_factors
from smallnets.structure.ranks import check_rank


def separable_kernel(depthwise: Tensor, pointwise: Tensor, rank: int = 1) -> Tensor:
    """The dense weight of a depthwise convolution and a 1x1 convolution after it.

    Args:
        depthwise: (I rank, 1, h, w), with `rank` kernels in a row for each of I input channels.
        pointwise: (O, I rank, 1, 1).
        rank: kernels a channel.

    Returns:
        (O, I, h, w).

    Raises:
        ValueError: shapes do not belong together.
    """
    if (
        depthwise.dim() != 4
        or depthwise.shape[1] != 1
        or pointwise.shape[1:] != (len(depthwise), 1, 1)
        or len(depthwise) % whole("rank", rank, 1)
    ):
        raise ValueError(
            "kernels must be (channels, 1, height, width) and (outputs, channels, 1, 1); "
            f"got {tuple(depthwise.shape)} and {tuple(pointwise.shape)} with {rank} a channel"
        )
    mix = pointwise.flatten(1).unflatten(1, (-1, rank))
    kernels = depthwise[:, 0].unflatten(0, (-1, rank))
    return torch.einsum("oir,irhw->oihw", mix, kernels)


class SeparableConv2d(nn.Sequential):
    """Depthwise convolution with `rank` kernels a channel, then a 1x1 convolution; linear.

    Args:
        in_channels, out_channels, kernel_size, bias, options: as of `nn.Conv2d`, in one group.
        rank: kernels for each input channel, from 1 to h w; 1 is the usual one.

    Raises:
        ValueError: the rank is out of range.
    """

    depthwise: nn.Conv2d
    pointwise: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        rank: int = 1,
        *,
        bias: bool = True,
        **options: object,
    ) -> None:
        inner = in_channels * rank
        depthwise = nn.Conv2d(
            in_channels, inner, kernel_size, groups=in_channels, bias=False, **options
        )
        check_rank("rank", rank, depthwise.weight[0].numel())
        pointwise = nn.Conv2d(inner, out_channels, 1, bias=bias)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))

    @classmethod
    def from_conv(cls, layer: nn.Conv2d, rank: int = 1) -> "SeparableConv2d":
        """The nearest separable convolution to a dense one, which stays as it is.

        Raises:
            ValueError: it is no plain convolution or has groups, or the rank is out of range.
        """
        check_layer(layer, nn.Conv2d)
        check_one_group(layer, "a separable convolution")
        mix, kernels = low_rank_factors(cls._matrices(layer), rank)  # (I, O, r), (I, r, h w)
        return filled(
            lambda: cls(
                layer.in_channels, layer.out_channels, layer.kernel_size, rank,
                bias=layer.bias is not None, **conv_options(layer),
            ),
            layer,
            with_bias(
                layer,
                "pointwise.bias",
                {
                    "depthwise.weight": kernels.reshape(-1, 1, *layer.kernel_size),
                    "pointwise.weight": mix.transpose(0, 1).flatten(1)[:, :, None, None],
                },
            ),
        )  # fmt: skip

    @staticmethod
    def _matrices(layer: nn.Conv2d) -> Tensor:
        """(I, O, h w)."""
        return wide_weight(layer).flatten(2).transpose(0, 1)

    @staticmethod
    def cost(layer: nn.Conv2d, rank: int) -> Cost:
        """What it costs in the place of a convolution: the share 1/O + 1/(h w) for rank 1."""
        size = rank * layer.in_channels * (layer.weight[0, 0].numel() + layer.out_channels)
        return Cost(size, size)

    @classmethod
    def spectra(cls, layer: nn.Conv2d) -> tuple[Tensor]:
        """The singular values of every input channel, (I, full)."""
        return (torch.linalg.svdvals(cls._matrices(layer)),)

    @staticmethod
    def full(layer: nn.Conv2d) -> tuple[int]:
        """The highest rank."""
        return (min(layer.weight[0, 0].numel(), layer.out_channels),)

    def dense(self) -> nn.Conv2d:
        """One convolution that computes the same."""
        rank = self.depthwise.out_channels // self.depthwise.in_channels
        weight = separable_kernel(self.depthwise.weight, self.pointwise.weight, rank)
        return dense_conv(weight, self.pointwise.bias, self, 1, conv_options(self.depthwise))
