"""Circulant matrices: n numbers instead of n^2, and n log n time by the fast Fourier transform.

Cheng et al., An Exploration of Parameter Redundancy in Deep Networks with Circulant Projections
(ICCV 2015), and Ding et al., CirCNN (MICRO 2017), which has circulant blocks. y = C x with
C[i, j] = c[(i - j) mod n] is the convolution of c and x around a circle, ifft(fft(c) fft(x)).

The nearest circulant matrix to a trained one is far away, as a rule: such a layer is to be trained.
"""

from math import ceil, log2

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.checks import whole
from smallnets.losses import to_float32
from smallnets.structure.layers import (
    Cost,
    check_layer,
    check_tensor,
    dense_linear,
    filled,
    wide_weight,
    with_bias,
)


def circulant_product(column: Tensor, x: Tensor) -> Tensor:
    """x C^T, with C the circulant matrix of a first column.

    Args:
        column: (n,).
        x: (..., n).

    Returns:
        (..., n).

    Raises:
        ValueError: shapes do not belong together.
    """
    if column.dim() != 1 or x.shape[-1:] != column.shape:
        raise ValueError(
            "a circulant product needs a column (n,) and inputs (..., n); "
            f"got {tuple(column.shape)} and {tuple(x.shape)}"
        )
    return _block_product(column[None, None], x)


def _block_product(columns: Tensor, x: Tensor) -> Tensor:
    """(p, q, b) first columns and (..., q b) -> (..., p b), at least in float32."""
    kind = torch.promote_types(x.dtype, columns.dtype)
    p, q, block = columns.shape
    spectrum = torch.fft.rfft(to_float32(columns))  # (p, q, f)
    signal = torch.fft.rfft(to_float32(x).reshape(-1, q, block))  # (n, q, f)
    product = (signal.permute(2, 0, 1) @ spectrum.permute(2, 1, 0)).permute(1, 2, 0)  # (n, p, f)
    return torch.fft.irfft(product, n=block).reshape(*x.shape[:-1], p * block).to(kind)


def circulant_matrix(columns: Tensor) -> Tensor:
    """The matrix (p b, q b) whose blocks are circulant, by their first columns (p, q, b)."""
    p, q, block = columns.shape
    place = torch.arange(block, device=columns.device)
    around = (place[:, None] - place) % block  # (i, j)
    return columns[:, :, around].transpose(1, 2).reshape(p * block, q * block)


def nearest_circulant(matrix: Tensor, block: int) -> Tensor:
    """First columns (p, q, b) of the matrix of circulant blocks nearest to a matrix: means along
    its diagonals, which go around. Beyond the edge of the matrix nothing is counted.

    Args:
        matrix: (m, n).
        block: side b of a block; p = m / b and q = n / b are rounded up.

    Raises:
        ValueError: it is no matrix of finite numbers, or the block is below 1.
    """
    check_tensor("a matrix to approximate", matrix, 2, 2)
    (m, n), b = matrix.shape, whole("block", block, 1)
    p, q = -(-m // b), -(-n // b)
    place = torch.arange(b, device=matrix.device)
    around = (place[:, None] - place) % b

    def sums(values: Tensor) -> Tensor:
        blocks = F.pad(values, (0, q * b - n, 0, p * b - m)).reshape(p, b, q, b).transpose(1, 2)
        found = values.new_zeros(p, q, b)
        return found.index_add(2, around.flatten(), blocks.flatten(2))

    return sums(matrix) / sums(torch.ones_like(matrix)).clamp_min(1)


class CirculantLinear(nn.Module):
    """A linear layer of circulant blocks.

    In torch it is computed by the fast Fourier transform; in an exported network, by the dense
    matrix, as ONNX files of this version know no transform.

    Args:
        in_features, out_features: as of `nn.Linear`; inputs are filled up with zeros, and outputs
            cut off, where the block does not divide them.
        block: side of a block; None is the smaller of the two.
        bias: whether there is one.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self, in_features: int, out_features: int, block: int | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_features = whole("in_features", in_features, 1)
        self.out_features = whole("out_features", out_features, 1)
        self.block = check_block(block, in_features, out_features)
        p, q = ceil(out_features / self.block), ceil(in_features / self.block)
        self.columns = nn.Parameter(torch.empty(p, q, self.block))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        bound = in_features**-0.5  # as of a new nn.Linear
        with torch.no_grad():
            for one in self.parameters():
                one.uniform_(-bound, bound)

    @classmethod
    def from_linear(cls, layer: nn.Linear, block: int | None = None) -> "CirculantLinear":
        """The nearest layer of circulant blocks to a layer, which stays as it is.

        Raises:
            ValueError: it is no plain linear layer, or the block is out of range.
        """
        check_layer(layer, nn.Linear)
        side = check_block(block, layer.in_features, layer.out_features)
        columns = nearest_circulant(wide_weight(layer), side)
        return filled(
            lambda: cls(layer.in_features, layer.out_features, side, layer.bias is not None),
            layer,
            with_bias(layer, "bias", {"columns": columns}),
        )

    @staticmethod
    def cost(layer: nn.Linear, block: int | None = None) -> Cost:
        """What it costs in the place of a linear layer; transforms as `fft_macs` counts."""
        b = check_block(block, layer.in_features, layer.out_features)
        p, q = ceil(layer.out_features / b), ceil(layer.in_features / b)
        return Cost(p * q * b, fft_macs(p, q, b))

    @property
    def transform_macs(self) -> int:
        """Multiply-adds for one example, as `fft_macs` counts them."""
        return fft_macs(*self.columns.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if torch.onnx.is_in_onnx_export():
            return F.linear(x, self._matrix(), self.bias)
        missing = self.columns.shape[1] * self.block - self.in_features
        y = _block_product(self.columns, F.pad(x, (0, missing)))[..., : self.out_features]
        return y if self.bias is None else y + self.bias

    def _matrix(self) -> Tensor:
        return circulant_matrix(self.columns)[: self.out_features, : self.in_features]

    def dense(self) -> nn.Linear:
        """One linear layer that computes the same."""
        return dense_linear(self._matrix(), self.bias, self)


def check_block(block: int | None, in_features: int, out_features: int) -> int:
    """The side of a block, from 1 to the larger of inputs and outputs; None is the smaller.

    Raises:
        ValueError: it is out of range.
    """
    if block is None:
        return min(in_features, out_features)
    if not 1 <= whole("block", block, 1) <= max(in_features, out_features):
        most = max(in_features, out_features)
        raise ValueError(f"block must be between 1 and {most}; got {block}")
    return int(block)


def fft_macs(p: int, q: int, block: int) -> int:
    """Real multiply-adds of a product with p x q circulant blocks whose columns are transformed
    already.

    A transform of b real numbers takes b / 4 * log2(b) complex products, and there are q of inputs
    and p of outputs; between them stand p q (b / 2 + 1) complex products. A complex product is four
    real ones.
    """
    transforms = (p + q) * block * log2(block) if block > 1 else 0
    return ceil(transforms) + 4 * p * q * (block // 2 + 1)
