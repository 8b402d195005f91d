"""Whole numbers of a few bits each, side by side in bytes."""

import numpy as np
import torch
from torch import Tensor

from smallnets.checks import between, whole


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Whole numbers of so many bits each as bytes without gaps, uint8 (ceil(n bits / 8),).

    Args:
        codes: any shape, from 0 to 2^bits - 1.
        bits: from 0 to 32.

    Raises:
        ValueError: a number is out of range.
    """
    between("bits", whole("bits", bits, 0), 0, 32)
    flat = codes.detach().cpu().flatten().numpy().astype(np.int64)
    low, high = (int(flat.min()), int(flat.max())) if flat.size else (0, 0)
    if low < 0 or high >= 2**bits:
        raise ValueError(
            f"codes of {bits} bits must be from 0 to {2**bits - 1}; got {low} to {high}"
        )
    planes = (flat[:, None] >> np.arange(bits)) & 1  # (n, bits)
    return torch.from_numpy(np.packbits(planes.astype(np.uint8)))


def unpack_codes(packed: Tensor, bits: int, count: int) -> Tensor:
    """The numbers, int64 (count,), that `pack_codes` packed.

    Raises:
        ValueError: there are more or fewer bytes than they take.
    """
    between("bits", whole("bits", bits, 0), 0, 32)
    size = -(-whole("count", count, 0) * bits // 8)
    if packed.dtype != torch.uint8 or packed.shape != (size,):
        raise ValueError(
            f"{count} codes of {bits} bits must be uint8 ({size},); "
            f"got {packed.dtype} {tuple(packed.shape)}"
        )
    planes = np.unpackbits(packed.cpu().numpy())[: count * bits].reshape(count, bits)
    return torch.from_numpy((planes.astype(np.int64) << np.arange(bits)).sum(axis=1))
