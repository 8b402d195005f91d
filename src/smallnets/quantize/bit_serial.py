"""Products of few-bit numbers by counting bits: one plane of bits at a time.

A k-bit number is a sum of its bits times powers of two, so that a dot product of two vectors is a
sum over pairs of planes of 2^(i+j) popcount(x_i & w_j): k_x times k_w binary products, which is
where "bit operations = MACs k_x k_w" comes from.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallnets.checks import between, whole
from smallnets.quantize.binary import _ONES as ONES
from smallnets.quantize.rounding import integer_range


@dataclass(frozen=True, eq=False)
class BitPlanes:
    """Rows of whole numbers as planes of bits.

    Attributes:
        planes: uint8 (bits, rows, ceil(length / 8)), the lowest bit first.
        length: numbers in a row.
        signed: whether the highest plane counts negative (two's complement).
    """

    planes: NDArray[np.uint8]
    length: int
    signed: bool

    @property
    def weights(self) -> NDArray[np.int64]:
        """What one bit of each plane is worth, (bits,)."""
        worth = 2 ** np.arange(len(self.planes), dtype=np.int64)
        if self.signed:
            worth[-1] *= -1
        return worth


def bit_planes(codes: Tensor, bits: int, signed: bool = False) -> BitPlanes:
    """Take rows of codes (rows, length) apart into planes.

    Args:
        codes: whole numbers of any type.
        bits: 1 to 16.
        signed: two's complement.

    Raises:
        ValueError: bits out of range, another shape, or a number that is not whole or does not fit.
    """
    between("bits", whole("bits", bits, 1), 1, 16)
    low, high = integer_range(bits, signed)
    values = codes.detach().cpu().double().numpy()
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"codes must be rows (rows, length); got shape {tuple(codes.shape)}")
    if not ((values == np.rint(values)) & (values >= low) & (values <= high)).all():
        raise ValueError(
            f"codes must be whole numbers from {low} to {high} for {bits} bits; got some from "
            f"{values.min():g} to {values.max():g}"
        )
    unsigned = values.astype(np.int64) & (2**bits - 1)
    planes = [np.packbits((unsigned >> bit & 1).astype(np.uint8), axis=1) for bit in range(bits)]
    return BitPlanes(np.stack(planes), values.shape[1], signed)


def bit_serial_product(a: BitPlanes, b: BitPlanes) -> NDArray[np.int64]:
    """The dot products (n, m) of rows (n, length) with rows (m, length): exact.

    Raises:
        ValueError: rows of different lengths.
    """
    if a.length != b.length:
        raise ValueError(f"rows must have one length; got {a.length} and {b.length}")
    total = np.zeros((a.planes.shape[1], b.planes.shape[1]), dtype=np.int64)
    for worth_a, plane_a in zip(a.weights, a.planes, strict=True):
        for worth_b, plane_b in zip(b.weights, b.planes, strict=True):
            both = ONES[plane_a[:, None] & plane_b[None]].sum(axis=2, dtype=np.int64)
            total += worth_a * worth_b * both
    return total


def bit_serial_linear(x: Tensor, w: Tensor, x_bits: int, w_bits: int) -> Tensor:
    """x w^T of unsigned codes x (batch, in) and signed codes w (out, in), int64 (batch, out)."""
    product = bit_serial_product(bit_planes(x, x_bits), bit_planes(w, w_bits, signed=True))
    return torch.from_numpy(product)
