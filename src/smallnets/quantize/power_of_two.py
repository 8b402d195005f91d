"""Powers of two: levels that turn a product into a shift.

The code book of INQ (Zhou et al., Incremental Network Quantization, ICLR 2017).
"""

import math

import torch
from torch import Tensor

from smallnets.checks import between, whole


def power_range(w: Tensor, bits: int) -> tuple[int, int]:
    """Return the exponents n1 >= n2 of the largest and the smallest level (equations 2 and 3).

    n1 = floor(log2(4 max|w| / 3)), n2 = n1 + 1 - 2^(bits - 2); `bits` is from 2 to 32.

    Raises ValueError for other bits, and for weights that are zero throughout or not finite.
    """
    between("bits", whole("bits", bits, 2), 2, 32)
    largest = float(w.detach().abs().max())
    if not 0 < largest < math.inf:
        raise ValueError(
            f"powers of two need finite weights, and one that is not 0; got {largest:g} as largest"
        )
    top = math.floor(math.log2(4 * largest / 3))
    return top, top + 1 - 2 ** (bits - 2)


def power_of_two(w: Tensor, bits: int) -> Tensor:
    """Return the nearest of 0 and +-2^n2 .. +-2^n1 (equation 4), with derivative 1.

    Sizes in [0.75, 1.5) * 2^e become 2^e; sizes below 2^n2 / 2 become 0.
    """
    level = nearest_power(w.detach(), *power_range(w, bits))
    return w + (level - w).detach()


def nearest_power(w: Tensor, top: int, bottom: int) -> Tensor:
    """Return the nearest of 0 and +-2^bottom .. +-2^top, without a gradient."""
    size = w.abs()
    exponent = torch.floor(torch.log2(size * (4 / 3))).clamp(bottom, top)
    return w.sign() * torch.where(size < 2.0**bottom / 2, 0, torch.exp2(exponent))
