"""Tucker-2: a convolution between few channels, with a 1x1 convolution before and after it.

Kim et al., Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
Applications (ICLR 2016): a weight (O, I, h, w) becomes 1x1 (I to r2), h x w (r2 to r1) and 1x1 (r1
to O). The two bases are those of the weight's unfoldings (HOSVD); alternating least squares (HOOI)
makes the best of them. Below half of the ranks the network needs fine-tuning.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallnets.checks import whole
from smallnets.structure.layers import (
    Cost,
    check_layer,
    check_tensor,
    conv_options,
    dense_conv,
    filled,
    steps_of,
    wide_weight,
    with_bias,
)
from smallnets.structure.ranks import check_rank


class Tucker2(NamedTuple):
    """A weight in two bases; leading dimensions (...) are of several weights."""

    core: Tensor  # (..., r1, r2, h, w)
    outputs: Tensor  # (..., O, r1), orthonormal columns
    inputs: Tensor  # (..., I, r2), orthonormal columns

    def dense(self) -> Tensor:
        """The weight (..., O, I, h, w) that they stand for."""
        return torch.einsum("...rshw,...or,...is->...oihw", self.core, self.outputs, self.inputs)


def tucker2(weight: Tensor, out_rank: int, in_rank: int, sweeps: int = 0) -> Tucker2:
    """The Tucker-2 decomposition of convolutions' weights.

    Args:
        weight: (..., O, I, h, w), float32 or float64.
        out_rank: r1, from 1 to O and to I h w.
        in_rank: r2, from 1 to I and to O h w.
        sweeps: of alternating least squares after the start by HOSVD, each of which finds the best
            basis of the outputs, then of the inputs; the error never grows.

    Raises:
        ValueError: a rank is out of range, or a number is not finite.
    """
    check_tensor("a weight to decompose", weight, 4)
    outs, ins, height, width = weight.shape[-4:]
    check_rank("out_rank", out_rank, min(outs, ins * height * width))
    check_rank("in_rank", in_rank, min(ins, outs * height * width))
    whole("sweeps", sweeps, 0)
    outputs = _basis(_by_outputs(weight), out_rank)
    inputs = _basis(_by_inputs(weight), in_rank)
    for _ in range(sweeps):
        few_inputs = torch.einsum("...oihw,...is->...oshw", weight, inputs)
        outputs = _basis(_by_outputs(few_inputs), out_rank)
        few_outputs = torch.einsum("...oihw,...or->...rihw", weight, outputs)
        inputs = _basis(_by_inputs(few_outputs), in_rank)
    core = torch.einsum("...oihw,...or,...is->...rshw", weight, outputs, inputs)
    return Tucker2(core, outputs, inputs)


def _by_outputs(weight: Tensor) -> Tensor:
    """(..., O, I h w)."""
    return weight.flatten(-3)


def _by_inputs(weight: Tensor) -> Tensor:
    """(..., I, O h w)."""
    return weight.transpose(-4, -3).flatten(-3)


def _basis(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors, (..., m, rank); further ones where the matrix has fewer.

    A sweep may ask for more outputs than there are inputs left.
    """
    full = rank > matrix.shape[-1]
    return torch.linalg.svd(matrix, full_matrices=full).U[..., :rank]


class Tucker2Conv2d(nn.Sequential):
    """1x1 convolution to `in_rank` channels, the kernel, and 1x1 convolution from `out_rank`.

    With groups, each has bases of its own, and ranks are those of one group.

    Args:
        in_channels, out_channels, kernel_size, groups, bias, options: as of `nn.Conv2d`.
        out_rank: from 1 to O / groups.
        in_rank: from 1 to I / groups.

    Raises:
        ValueError: a rank is out of range.
    """

    reduce: nn.Conv2d
    core: nn.Conv2d
    expand: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        out_rank: int,
        in_rank: int,
        *,
        groups: int = 1,
        bias: bool = True,
        **options: object,
    ) -> None:
        check_rank("out_rank", out_rank, out_channels // groups)
        check_rank("in_rank", in_rank, in_channels // groups)
        outs, ins = groups * out_rank, groups * in_rank
        super().__init__(
            OrderedDict(
                reduce=nn.Conv2d(in_channels, ins, 1, groups=groups, bias=False),
                core=nn.Conv2d(ins, outs, kernel_size, groups=groups, bias=False, **options),
                expand=nn.Conv2d(outs, out_channels, 1, groups=groups, bias=bias),
            )
        )

    @classmethod
    def from_conv(
        cls, layer: nn.Conv2d, out_rank: int, in_rank: int, sweeps: int = 0
    ) -> "Tucker2Conv2d":
        """The decomposition of a convolution, which stays as it is; see `tucker2`.

        Raises:
            ValueError: it is no plain convolution, or a rank is out of range.
        """
        check_layer(layer, nn.Conv2d)
        found = tucker2(cls._groups(layer), out_rank, in_rank, sweeps)
        return filled(
            lambda: cls(
                layer.in_channels, layer.out_channels, layer.kernel_size, out_rank, in_rank,
                groups=layer.groups, bias=layer.bias is not None, **conv_options(layer),
            ),
            layer,
            with_bias(
                layer,
                "expand.bias",
                {
                    "reduce.weight": found.inputs.mT.flatten(0, 1)[:, :, None, None],
                    "core.weight": found.core.flatten(0, 1),
                    "expand.weight": found.outputs.flatten(0, 1)[:, :, None, None],
                },
            ),
        )  # fmt: skip

    @staticmethod
    def _groups(layer: nn.Conv2d) -> Tensor:
        """(groups, O / groups, I / groups, h, w)."""
        return wide_weight(layer).unflatten(0, (layer.groups, -1))

    @staticmethod
    def cost(layer: nn.Conv2d, out_rank: int, in_rank: int) -> Cost:
        """What the three layers cost in the place of a convolution; a stride comes after the first,
        which has more positions therefore.
        """
        kernel = layer.weight[0, 0].numel()
        first, last = layer.in_channels * in_rank, layer.out_channels * out_rank
        middle = layer.groups * out_rank * in_rank * kernel
        return Cost(first + middle + last, steps_of(layer) * first + middle + last)

    @classmethod
    def spectra(cls, layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """The singular values of both unfoldings, by outputs and by inputs, of every group."""
        weight = cls._groups(layer)
        return torch.linalg.svdvals(_by_outputs(weight)), torch.linalg.svdvals(_by_inputs(weight))

    @staticmethod
    def full(layer: nn.Conv2d) -> tuple[int, int]:
        """The highest ranks, of outputs and of inputs."""
        kernel = layer.weight[0, 0].numel()
        outs, ins = layer.out_channels // layer.groups, layer.in_channels // layer.groups
        return min(outs, ins * kernel), min(ins, outs * kernel)

    def dense(self) -> nn.Conv2d:
        """One convolution that computes the same."""
        groups = self.core.groups
        core, outputs, reduce = (
            one.weight.unflatten(0, (groups, -1)) for one in (self.core, self.expand, self.reduce)
        )
        found = Tucker2(core, outputs.flatten(2), reduce.flatten(2).mT)
        return dense_conv(
            found.dense().flatten(0, 1), self.expand.bias, self, groups, conv_options(self.core)
        )
