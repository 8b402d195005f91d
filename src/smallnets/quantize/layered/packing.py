"""Layers as bytes: `low` bits a weight for the basic layer, one bit a weight for each other.

Weights in row-major order, the most significant bit first, bytes filled from their most
significant bit, zeros after the last weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from smallnets.quantize.layered.codes import bit_planes, check_codes, check_levels


def pack_base(codes: Tensor, low: int) -> bytes:
    """Two's complement of `low` bits each, in ceil(low n / 8) bytes."""
    flat = check_codes(codes, low).detach().cpu().reshape(-1).numpy().astype(np.int16)
    places = np.arange(low - 1, -1, -1, dtype=np.int16)
    return np.packbits(((flat[:, None] >> places) & 1).astype(np.uint8)).tobytes()


def unpack_base(data: bytes, count: int, low: int) -> Tensor:
    """Codes (count,) int16 from the bytes of `pack_base`."""
    bits = np.unpackbits(_exactly(data, layer_bytes(count, low), "the basic layer"))
    digits = bits[: low * count].reshape(count, low).astype(np.int16)
    worth = 2 ** np.arange(low - 1, -1, -1, dtype=np.int32)
    worth[0] = -worth[0]  # the sign bit
    return torch.from_numpy((digits @ worth).astype(np.int16))


def pack_plane(plane: Tensor) -> bytes:
    """Zeros and ones as ceil(n / 8) bytes."""
    return np.packbits(plane.detach().cpu().reshape(-1).numpy()).tobytes()


def unpack_plane(data: bytes, count: int) -> Tensor:
    """Zeros and ones (count,) uint8 from the bytes of `pack_plane`."""
    bits = np.unpackbits(_exactly(data, layer_bytes(count, 1), "a plane"), count=count)
    return torch.from_numpy(bits)


def layer_bytes(count: int, bits: int) -> int:
    """Bytes that `count` numbers of `bits` bits take."""
    return -(-bits * count // 8)


def _exactly(data: bytes, size: int, what: str) -> np.ndarray:
    if len(data) != size:
        raise ValueError(f"{what} must have {size} bytes; got {len(data)}")
    return np.frombuffer(data, np.uint8)


@dataclass(frozen=True)
class LayeredTensor:
    """One weight tensor in layers of bytes.

    Attributes:
        base: the basic layer.
        planes: width -> enhance layer, for `low` + 1 up to `high` in order.
        shape: of the tensor.
        high, low: highest and lowest width.
    """

    base: bytes
    planes: Mapping[int, bytes]
    shape: tuple[int, ...]
    high: int
    low: int

    def codes(self, bits: int) -> Tensor:
        """Codes (shape) int16 of a width; only the layers up to it are read.

        Raises:
            ValueError: a width outside low..high, a layer that is missing, or of a wrong size.
        """
        check_levels(self.high, self.low)
        if not self.low <= bits <= self.high:
            raise ValueError(f"bits must be between {self.low} and {self.high}; got {bits}")
        count = prod(self.shape)
        codes = unpack_base(self.base, count, self.low)
        for width in range(self.low + 1, bits + 1):
            if width not in self.planes:
                raise ValueError(
                    f"{bits} bits need the planes {self.low + 1} to {bits}; "
                    f"plane {width} is missing"
                )
            codes = 2 * codes + unpack_plane(self.planes[width], count)
        return codes.reshape(self.shape)

    def nbytes(self, bits: int) -> int:
        """Bytes that have to be read, or sent, for a width."""
        return len(self.base) + sum(len(self.planes[b]) for b in range(self.low + 1, bits + 1))


def pack_layered(codes: Tensor, high: int, low: int) -> LayeredTensor:
    """A tensor of `high`-bit codes in layers.

    Raises:
        ValueError: codes that are not signed integers of `high` bits.
    """
    base, planes = bit_planes(codes, high, low)
    packed = {bits: pack_plane(plane) for bits, plane in planes.items()}
    return LayeredTensor(pack_base(base, low), packed, tuple(codes.shape), high, low)
