"""CP: a convolution as a sum of outer products, computed as 1x1, depthwise, 1x1.

Lebedev et al., Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition (ICLR
2015). The kernel's two sides stay together here: w[o, i, h, w] = sum_r a[o, r] b[i, r] c[hw, r], so
that the layer is an inverted residual without its norms and activations. Factors come from
alternating least squares, which find no best ones for certain.
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


class CP(NamedTuple):
    """Factors of a weight, each (size, rank)."""

    outputs: Tensor
    inputs: Tensor
    kernels: Tensor

    def dense(self) -> Tensor:
        """The tensor (O, I, h w) that they stand for."""
        return torch.einsum("or,ir,kr->oik", *self)


def cp(tensor: Tensor, rank: int, sweeps: int = 30) -> CP:
    """Factors of a tensor by alternating least squares, from the leading singular vectors of its
    unfoldings; where the rank is above a side, from fixed random numbers.

    Args:
        tensor: (O, I, K), float32 or float64.
        rank: at least 1.
        sweeps: over the three factors, at least 1.

    Raises:
        ValueError: a number is out of range or not finite.
    """
    whole("rank", rank, 1)
    whole("sweeps", sweeps, 1)
    check_tensor("a weight to decompose", tensor, 3, 3)
    unfolded = [tensor.movedim(mode, 0).flatten(1) for mode in range(3)]
    factors = [_start(matrix, rank, mode) for mode, matrix in enumerate(unfolded)]
    for _ in range(sweeps):
        for mode, matrix in enumerate(unfolded):
            first, second = (one for other, one in enumerate(factors) if other != mode)
            pairs = torch.einsum("ar,br->abr", first, second).flatten(0, 1)
            gram = (first.mT @ first) * (second.mT @ second)
            # Directions that two components share are left alone, not divided by nothing.
            found = matrix @ pairs @ torch.linalg.pinv(gram, hermitian=True)
            factors[mode] = found
        _balance(factors)
    return CP(*factors)


def _start(matrix: Tensor, rank: int, mode: int) -> Tensor:
    basis = torch.linalg.svd(matrix, full_matrices=False).U[:, :rank]
    generator = torch.Generator().manual_seed(mode)
    missing = rank - basis.shape[1]
    drawn = torch.randn(len(matrix), missing, generator=generator, dtype=torch.float64)
    return torch.cat([basis, drawn.to(basis) / len(matrix) ** 0.5], dim=1)


def _balance(factors: list[Tensor]) -> None:
    """Give the three parts of every component one size, in place; their product stays."""
    sizes = torch.stack([torch.linalg.vector_norm(one, dim=0) for one in factors])
    size = sizes.prod(dim=0) ** (1 / 3)
    scales = size / sizes.clamp_min(1e-30)
    factors[:] = [one * scale for one, scale in zip(factors, scales, strict=True)]


class CPConv2d(nn.Sequential):
    """1x1 convolution to `rank` channels, depthwise kernel, 1x1 convolution from them.

    Args:
        in_channels, out_channels, kernel_size, bias, options: as of `nn.Conv2d`, in one group.
        rank: components, at least 1.

    Raises:
        ValueError: the rank is below 1.
    """

    reduce: nn.Conv2d
    depthwise: nn.Conv2d
    expand: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        rank: int,
        *,
        bias: bool = True,
        **options: object,
    ) -> None:
        whole("rank", rank, 1)
        super().__init__(
            OrderedDict(
                reduce=nn.Conv2d(in_channels, rank, 1, bias=False),
                depthwise=nn.Conv2d(rank, rank, kernel_size, groups=rank, bias=False, **options),
                expand=nn.Conv2d(rank, out_channels, 1, bias=bias),
            )
        )

    @classmethod
    def from_conv(cls, layer: nn.Conv2d, rank: int, sweeps: int = 30) -> "CPConv2d":
        """The decomposition of a convolution, which stays as it is; see `cp`.

        Raises:
            ValueError: it is no plain convolution, or has groups; a number is below 1.
        """
        check_layer(layer, nn.Conv2d)
        check_one_group(layer, "CP")
        found = cp(wide_weight(layer).flatten(2), rank, sweeps)
        return filled(
            lambda: cls(
                layer.in_channels, layer.out_channels, layer.kernel_size, rank,
                bias=layer.bias is not None, **conv_options(layer),
            ),
            layer,
            with_bias(
                layer,
                "expand.bias",
                {
                    "reduce.weight": found.inputs.mT[:, :, None, None],
                    "depthwise.weight": found.kernels.mT.reshape(rank, 1, *layer.kernel_size),
                    "expand.weight": found.outputs[:, :, None, None],
                },
            ),
        )  # fmt: skip

    @staticmethod
    def cost(layer: nn.Conv2d, rank: int) -> Cost:
        """What the three layers cost in the place of a convolution."""
        first, rest = layer.in_channels, layer.weight[0, 0].numel() + layer.out_channels
        return Cost(rank * (first + rest), rank * (steps_of(layer) * first + rest))

    @staticmethod
    def full(layer: nn.Conv2d) -> tuple[int]:
        """A rank at which CP is exact: the product of the two smallest of O, I and h w."""
        small, middle, _ = sorted(
            (layer.out_channels, layer.in_channels, layer.weight[0, 0].numel())
        )
        return (small * middle,)

    def dense(self) -> nn.Conv2d:
        """One convolution that computes the same."""
        found = CP(
            self.expand.weight.flatten(1),
            self.reduce.weight.flatten(1).mT,
            self.depthwise.weight.flatten(1).mT,
        ).dense()
        weight = found.unflatten(2, self.depthwise.kernel_size)
        return dense_conv(weight, self.expand.bias, self, 1, conv_options(self.depthwise))


def check_one_group(layer: nn.Conv2d, what: str) -> None:
    """Raise ValueError if a convolution has groups."""
    if layer.groups != 1:
        raise ValueError(f"{what} needs a convolution in one group; got {layer.groups} groups")
