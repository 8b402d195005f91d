"""Matrices of low rank: a linear layer as two thin ones, and a convolution in both of the ways in
which its four-dimensional weight can be read as a matrix.

The best approximation of rank r keeps the r largest singular values (Eckart and Young). A matrix
(m, n) then takes r (m + n) numbers instead of m n, so r has to be below m n / (m + n). A
convolution's weight (O, I, h, w) is read as (O, I h w), by which a few filters are mixed into all
(`LowRankConv2d`), or as (O I, h w), by which a few kernels are mixed into all (`BasisConv2d`). The
same rank costs something else in each.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from smallnets.structure.layers import (
    Cost,
    Movement,
    check_layer,
    check_tensor,
    conv_options,
    dense_conv,
    dense_linear,
    filled,
    wide_weight,
    with_bias,
)
from smallnets.structure.ranks import check_rank

Conv = TypeVar("Conv", bound=nn.Module)


def low_rank_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors of the best approximation of a rank, equally large.

    Args:
        matrix: (..., m, n), float32 or float64.
        rank: from 1 to min(m, n).

    Returns:
        (..., m, rank) and (..., rank, n), whose product is the approximation.

    Raises:
        ValueError: the rank is out of range, or a number is not finite.
    """
    check_tensor("a matrix to decompose", matrix, 2)
    check_rank("rank", rank, min(matrix.shape[-2:]))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[..., :rank].sqrt()
    return left[..., :rank] * root[..., None, :], root[..., :, None] * right[..., :rank, :]


class LowRankLinear(nn.Sequential):
    """y = U (V x) + b: a linear layer to `rank` numbers, and one from them.

    Args:
        in_features, out_features: as of `nn.Linear`.
        rank: from 1 to the smaller of the two.
        bias: of the second layer.

    Raises:
        ValueError: the rank is out of range.
    """

    down: nn.Linear
    up: nn.Linear

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = True) -> None:
        check_rank("rank", rank, min(in_features, out_features))
        down, up = nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features, bias)
        super().__init__(OrderedDict(down=down, up=up))

    @classmethod
    def from_linear(cls, layer: nn.Linear, rank: int) -> "LowRankLinear":
        """The best approximation of a layer, which stays as it is.

        Raises:
            ValueError: it is no plain linear layer, or the rank is above its smaller side.
        """
        check_layer(layer, nn.Linear)
        up, down = low_rank_factors(wide_weight(layer), rank)
        return filled(
            lambda: cls(layer.in_features, layer.out_features, rank, layer.bias is not None),
            layer,
            with_bias(layer, "up.bias", {"down.weight": down, "up.weight": up}),
        )

    @staticmethod
    def cost(layer: nn.Linear, rank: int) -> Cost:
        """What a layer of this rank costs in the place of another."""
        size = rank * (layer.in_features + layer.out_features)
        return Cost(size, size)

    @staticmethod
    def spectra(layer: nn.Linear) -> tuple[Tensor]:
        """The singular values of a layer's weight, (min(inputs, outputs),)."""
        return (torch.linalg.svdvals(wide_weight(layer)),)

    @staticmethod
    def full(layer: nn.Linear) -> tuple[int]:
        """The highest rank."""
        return (min(layer.in_features, layer.out_features),)

    def dense(self) -> nn.Linear:
        """One linear layer that computes the same."""
        return dense_linear(self.up.weight @ self.down.weight, self.up.bias, self)


def _in_place_of(layer: nn.Conv2d, make: Callable[..., Conv], weights: dict[str, Tensor]) -> Conv:
    """A convolution with the sizes and the bias of another one, and weights of its own."""
    sizes = layer.in_channels, layer.out_channels, layer.kernel_size
    how = {"groups": layer.groups, "bias": layer.bias is not None, **conv_options(layer)}
    return filled(partial(make, *sizes, **how), layer, with_bias(layer, "mix.bias", weights))


class LowRankConv2d(nn.Sequential):
    """`rank` filters of the whole kernel, mixed by a 1x1 convolution: the weight as (O, I h w).

    With groups, each has `rank` filters of its own.

    Args:
        in_channels, out_channels, kernel_size, groups, bias, options: as of `nn.Conv2d`.
        rank: filters a group, from 1 to min(O / groups, I h w / groups).

    Raises:
        ValueError: the rank is out of range.
    """

    filters: nn.Conv2d
    mix: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        rank: int,
        *,
        groups: int = 1,
        bias: bool = True,
        **options: object,
    ) -> None:
        inner = groups * rank
        filters = nn.Conv2d(in_channels, inner, kernel_size, groups=groups, bias=False, **options)
        check_rank("rank", rank, min(out_channels // groups, filters.weight[0].numel()))
        mix = nn.Conv2d(inner, out_channels, 1, groups=groups, bias=bias)
        super().__init__(OrderedDict(filters=filters, mix=mix))

    @classmethod
    def from_conv(cls, layer: nn.Conv2d, rank: int) -> "LowRankConv2d":
        """The best approximation of a convolution, which stays as it is.

        Raises:
            ValueError: it is no plain convolution, or the rank is out of range.
        """
        check_layer(layer, nn.Conv2d)
        mix, filters = low_rank_factors(cls._matrix(layer), rank)
        weights = {
            "filters.weight": filters.reshape(-1, *layer.weight.shape[1:]),
            "mix.weight": mix.reshape(layer.out_channels, rank, 1, 1),
        }
        return _in_place_of(layer, partial(cls, rank=rank), weights)

    @staticmethod
    def _matrix(layer: nn.Conv2d) -> Tensor:
        """(groups, O / groups, I h w / groups)."""
        return wide_weight(layer).flatten(1).unflatten(0, (layer.groups, -1))

    @staticmethod
    def cost(layer: nn.Conv2d, rank: int) -> Cost:
        """What a convolution of this rank costs in the place of another."""
        size = rank * (layer.groups * layer.weight[0].numel() + layer.out_channels)
        return Cost(size, size)

    @classmethod
    def spectra(cls, layer: nn.Conv2d) -> tuple[Tensor]:
        """The singular values of every group, (groups, full)."""
        return (torch.linalg.svdvals(cls._matrix(layer)),)

    @staticmethod
    def full(layer: nn.Conv2d) -> tuple[int]:
        """The highest rank."""
        return (min(layer.out_channels // layer.groups, layer.weight[0].numel()),)

    def dense(self) -> nn.Conv2d:
        """One convolution that computes the same."""
        groups = self.filters.groups
        filters = self.filters.weight.flatten(1).unflatten(0, (groups, -1))
        mix = self.mix.weight.flatten(1).unflatten(0, (groups, -1))
        weight = (mix @ filters).reshape(-1, *self.filters.weight.shape[1:])
        return dense_conv(weight, self.mix.bias, self, groups, conv_options(self.filters))


class BasisConv2d(nn.Module):
    """`rank` kernels that every input channel is convolved with, mixed by a 1x1 convolution: the
    weight as (O I, h w).

    It stores little more than `rank` / (h w) of the dense weight, but computes I * rank maps.

    Args:
        in_channels, out_channels, kernel_size, groups, bias, options: as of `nn.Conv2d`.
        rank: kernels, from 1 to h w.

    Raises:
        ValueError: the rank is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        rank: int,
        *,
        groups: int = 1,
        bias: bool = True,
        **options: object,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        one = nn.Conv2d(1, rank, kernel_size, bias=False, **options)
        check_rank("rank", rank, one.weight[0].numel())
        self.kernels, self.movement = one.weight, Movement.of(one)  # (rank, 1, h, w)
        self.mix = nn.Conv2d(in_channels * rank, out_channels, 1, groups=groups, bias=bias)

    @classmethod
    def from_conv(cls, layer: nn.Conv2d, rank: int) -> "BasisConv2d":
        """The best approximation of a convolution, which stays as it is.

        Raises:
            ValueError: it is no plain convolution, or the rank is out of range.
        """
        check_layer(layer, nn.Conv2d)
        mix, kernels = low_rank_factors(cls._matrix(layer), rank)
        weights = {
            "kernels": kernels.reshape(rank, 1, *layer.kernel_size),
            "mix.weight": mix.reshape(layer.out_channels, -1, 1, 1),
        }
        return _in_place_of(layer, partial(cls, rank=rank), weights)

    @staticmethod
    def _matrix(layer: nn.Conv2d) -> Tensor:
        """(O I / groups, h w)."""
        return wide_weight(layer).flatten(2).flatten(0, 1)

    @staticmethod
    def cost(layer: nn.Conv2d, rank: int) -> Cost:
        """What a convolution of so many kernels costs in the place of another."""
        kernel = layer.weight[0, 0].numel()
        mix = rank * layer.weight[:, :, 0, 0].numel()
        return Cost(rank * kernel + mix, layer.in_channels * rank * kernel + mix)

    @classmethod
    def spectra(cls, layer: nn.Conv2d) -> tuple[Tensor]:
        """The singular values, (full,)."""
        return (torch.linalg.svdvals(cls._matrix(layer)),)

    @classmethod
    def full(cls, layer: nn.Conv2d) -> tuple[int]:
        """The highest rank."""
        return (min(layer.weight[0, 0].numel(), layer.weight[:, :, 0, 0].numel()),)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h', w')."""
        every = self.kernels.repeat(self.in_channels, 1, 1, 1)  # (in_channels rank, 1, h, w)
        return self.mix(self.movement(x, every, None, self.in_channels))

    def dense(self) -> nn.Conv2d:
        """One convolution that computes the same."""
        rank = len(self.kernels)
        mix = self.mix.weight.flatten(1).unflatten(1, (-1, rank))  # (O, I / groups, rank)
        weight = torch.einsum("oir,rhw->oihw", mix, self.kernels[:, 0])
        return dense_conv(weight, self.mix.bias, self, self.mix.groups, self.movement.options)
