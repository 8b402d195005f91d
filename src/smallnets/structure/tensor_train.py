"""Tensor trains: a matrix as a chain of small cores.

Novikov et al., Tensorizing Neural Networks (NeurIPS 2015). A matrix (m_1 ... m_d, n_1 ... n_d) is a
tensor whose i-th mode is the pair (m_i, n_i); core i is (r_{i-1}, m_i, n_i, r_i), with r_0 = r_d =
1. One singular value decomposition a core (TT-SVD) finds them.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from smallnets.checks import each, whole
from smallnets.structure.layers import (
    Cost,
    check_layer,
    check_tensor,
    dense_linear,
    filled,
    wide_weight,
    with_bias,
)

Modes = tuple[int, ...]


def balanced_modes(size: int, count: int) -> Modes:
    """A size as a product of so many numbers, falling and nearly equal: its prime factors, the
    largest first, each go to the smallest product.

    Raises:
        ValueError: a number is below 1.
    """
    rest, factors = whole("size", size, 1), [1] * whole("count", count, 1)
    primes, divisor = [], 2
    while divisor * divisor <= rest:
        while rest % divisor == 0:
            primes.append(divisor)
            rest //= divisor
        divisor += 1
    for prime in sorted([*primes, rest], reverse=True):
        factors[factors.index(min(factors))] *= prime
    return tuple(sorted(factors, reverse=True))


def tt_cores(matrix: Tensor, out_modes: Modes, in_modes: Modes, max_rank: int) -> list[Tensor]:
    """The cores of a matrix, each (r, m_i, n_i, r'), by TT-SVD.

    Args:
        matrix: (m, n), float32 or float64.
        out_modes, in_modes: as many numbers each, with the products m and n.
        max_rank: the most singular values that any cut keeps, at least 1.

    Raises:
        ValueError: modes do not belong to the matrix, the rank is below 1, or a number is not
            finite.
    """
    check_tensor("a matrix to decompose", matrix, 2, 2)
    out_modes, in_modes = tuple(out_modes), tuple(in_modes)
    _check_modes(out_modes, in_modes, *matrix.shape)
    whole("max_rank", max_rank, 1)
    count = len(out_modes)
    pairs = [axis for i in range(count) for axis in (i, count + i)]
    rest = matrix.reshape(*out_modes, *in_modes).permute(pairs)
    cores, rank = [], 1
    for m, n in zip(out_modes[:-1], in_modes[:-1], strict=True):
        left, values, right = torch.linalg.svd(rest.reshape(rank * m * n, -1), full_matrices=False)
        kept = min(max_rank, len(values))
        cores.append(left[:, :kept].reshape(rank, m, n, kept))
        rest, rank = values[:kept, None] * right[:kept], kept
    return [*cores, rest.reshape(rank, out_modes[-1], in_modes[-1], 1)]


def tt_matrix(cores: Sequence[Tensor]) -> Tensor:
    """The matrix (m, n) that cores stand for."""
    whole_train = cores[0]
    for core in cores[1:]:
        joined = torch.einsum("amnb,bpqc->ampnqc", whole_train, core)
        whole_train = joined.flatten(3, 4).flatten(1, 2)
    return whole_train[0, :, :, 0]


def tt_ranks(out_modes: Modes, in_modes: Modes, max_rank: int) -> tuple[int, ...]:
    """The ranks r_0 ... r_d that TT-SVD gives a matrix of full rank."""
    sizes = [m * n for m, n in zip(out_modes, in_modes, strict=True)]
    ranks = [1]
    for i, size in enumerate(sizes[:-1]):
        ranks.append(min(max_rank, ranks[-1] * size, prod(sizes[i + 1 :])))
    return (*ranks, 1)


def _check_modes(out_modes: Modes, in_modes: Modes, outputs: int, inputs: int) -> None:
    for name, modes, size in (("out_modes", out_modes, outputs), ("in_modes", in_modes, inputs)):
        each(name, modes, whole, 1)
        if prod(modes) != size or len(out_modes) != len(in_modes):
            raise ValueError(
                f"{name} must be as many numbers as the others, with the product {size}; "
                f"got {tuple(modes)}"
            )


class TTLinear(nn.Module):
    """A linear layer whose matrix is a tensor train.

    Its cores are contracted with the input one by one; the matrix is never made.

    Args:
        in_modes, out_modes: their products are the numbers of inputs and outputs.
        max_rank: of any cut.
        bias: whether there is one.

    Raises:
        ValueError: modes of different lengths, or a number below 1.
    """

    def __init__(self, in_modes: Modes, out_modes: Modes, max_rank: int, bias: bool = True) -> None:
        super().__init__()
        self.in_modes, self.out_modes = tuple(in_modes), tuple(out_modes)
        _check_modes(self.out_modes, self.in_modes, prod(self.out_modes), prod(self.in_modes))
        whole("max_rank", max_rank, 1)
        ranks = tt_ranks(self.out_modes, self.in_modes, max_rank)
        shapes = zip(ranks[:-1], self.out_modes, self.in_modes, ranks[1:], strict=True)
        self.cores = nn.ParameterList([nn.Parameter(torch.empty(shape)) for shape in shapes])
        self.bias = nn.Parameter(torch.empty(prod(self.out_modes))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw cores so that entries of the matrix vary as those of a new `nn.Linear`, 1/(3 n)."""
        inner = prod(core.shape[-1] for core in self.cores)
        spread = (1 / (3 * prod(self.in_modes) * inner)) ** (0.5 / len(self.cores))
        with torch.no_grad():
            for core in self.cores:
                core.normal_(0, spread)
            if self.bias is not None:
                bound = prod(self.in_modes) ** -0.5
                self.bias.uniform_(-bound, bound)

    @classmethod
    def from_linear(
        cls,
        layer: nn.Linear,
        max_rank: int,
        in_modes: Modes | None = None,
        out_modes: Modes | None = None,
        *,
        count: int = 3,
    ) -> "TTLinear":
        """The tensor train of a layer, which stays as it is.

        Args:
            layer: a linear layer.
            max_rank: of any cut.
            in_modes, out_modes: None takes `balanced_modes`.
            count: how many modes these are.

        Raises:
            ValueError: it is no plain linear layer, or as `tt_cores`.
        """
        check_layer(layer, nn.Linear)
        ins = balanced_modes(layer.in_features, count) if in_modes is None else tuple(in_modes)
        outs = balanced_modes(layer.out_features, count) if out_modes is None else tuple(out_modes)
        cores = tt_cores(wide_weight(layer), outs, ins, max_rank)
        return filled(
            lambda: cls(ins, outs, max_rank, layer.bias is not None),
            layer,
            with_bias(layer, "bias", {f"cores.{i}": core for i, core in enumerate(cores)}),
        )

    @staticmethod
    def cost(layer: nn.Linear, max_rank: int, count: int = 3) -> Cost:
        """What it costs in the place of a linear layer, with balanced modes."""
        ins = balanced_modes(layer.in_features, count)
        outs = balanced_modes(layer.out_features, count)
        ranks = tt_ranks(outs, ins, max_rank)
        sizes = [a * m * n * b for a, m, n, b in zip(ranks[:-1], outs, ins, ranks[1:], strict=True)]
        macs = [size * prod(outs[:i]) * prod(ins[i + 1 :]) for i, size in enumerate(sizes)]
        return Cost(sum(sizes), sum(macs))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        z = x.reshape(-1, self.in_modes[0], prod(self.in_modes[1:]))
        for i, core in enumerate(self.cores):
            rank, m, n, following = core.shape
            matrix = core.permute(1, 3, 0, 2).reshape(m * following, rank * n)
            z = matrix @ z.reshape(-1, rank * n, prod(self.in_modes[i + 1 :]))
            # (batch m_1 ... m_i, r_i n_{i+1}, n_{i+2} ...) comes next
        y = z.reshape(*x.shape[:-1], prod(self.out_modes))
        return y if self.bias is None else y + self.bias

    def dense(self) -> nn.Linear:
        """One linear layer that computes the same."""
        return dense_linear(tt_matrix(list(self.cores)), self.bias, self)
