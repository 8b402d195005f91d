"""Hashed layers: a fixed hash says which of few numbers a position of the weight takes.

Chen et al., Compressing Neural Networks with the Hashing Trick (ICML 2015): w[i, j] = xi(i, j)
v[h(i, j)], where h is a bucket, and xi a sign, from another hash, which removes the bias of
collisions. Neither is stored: a seed gives both.
"""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from smallnets.checks import between, whole
from smallnets.structure.layers import Layer, check_layer, wide_weight
from smallnets.structure.shared import SharedWeight

SIGNS = 0x9E3779B97F4A7C15  # added to the seed for the hash of signs


def hashes(count: int, seed: int) -> np.ndarray:
    """A 64-bit hash of each of the numbers 0, 1, ... count - 1 (SplitMix64), uint64 (count,)."""
    step = 0x9E3779B97F4A7C15
    start = np.uint64((seed + 1) * step % 2**64)
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) * np.uint64(step) + start
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hash_positions(count: int, buckets: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The bucket, int64 from 0 to `buckets` - 1, and the sign, int8 -1 or 1, of each position.

    Args:
        count: positions of a weight, counted along its rows.
        buckets: numbers that they share, from 1 to `count`.
        seed: of both hashes, at least 0.

    Raises:
        ValueError: a number is out of range.
    """
    between("buckets", whole("buckets", buckets, 1), 1, whole("count", count, 1))
    whole("seed", seed, 0)
    bucket = hashes(count, seed) % np.uint64(buckets)
    sign = (hashes(count, seed ^ SIGNS) >> np.uint64(63)).astype(np.int8)
    return torch.from_numpy(bucket.astype(np.int64)), torch.from_numpy(1 - 2 * sign)


class Hashed(SharedWeight):
    """What `HashedLinear` and `HashedConv2d` have in common: `values` (buckets,)."""

    bucket: Tensor
    sign: Tensor

    def __init__(self, layer: Layer, buckets: int, seed: int) -> None:
        super().__init__(layer)
        self.buckets = buckets
        self._hash(seed, layer.weight.device)
        self.values = nn.Parameter(self._nearest(wide_weight(layer)).to(layer.weight.dtype))

    def _hash(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        bucket, sign = hash_positions(self.size, self.buckets, seed)
        self.register_buffer("bucket", bucket.to(device), persistent=False)
        self.register_buffer("sign", sign.to(device), persistent=False)

    def _nearest(self, weight: Tensor) -> Tensor:
        """The mean of every bucket's members with their signs: the least squared error."""
        signed = weight.flatten() * self.sign
        empty = signed.new_zeros(self.buckets)
        count = empty.index_add(0, self.bucket, torch.ones_like(signed)).clamp_min(1)
        return empty.index_add(0, self.bucket, signed) / count

    @classmethod
    def _of(cls, layer: Layer, buckets: int, seed: int) -> Self:
        """Made from a layer, in its mode, and trained if it is."""
        module = cls.__new__(cls)
        Hashed.__init__(module, layer, buckets, seed)
        module.requires_grad_(layer.weight.requires_grad).train(layer.training)
        return module

    def looked_up(self) -> Tensor:
        """The dense weight."""
        return (self.values[self.bucket] * self.sign).reshape(self.weight_shape)

    def stored_bits(self, bits: float) -> float:
        """The values; hashes are computed."""
        return self.buckets * bits

    def get_extra_state(self) -> Tensor:
        """The seed, which a state dictionary has to hold: values mean nothing with another hash."""
        return torch.tensor(self.seed)

    def set_extra_state(self, state: Any) -> None:
        """Hash again as the state was hashed."""
        if int(state) != self.seed:
            self._hash(int(state), self.values.device)


class HashedLinear(Hashed):
    """A linear layer with so many numbers as its weight.

    Args:
        in_features, out_features, bias: as of `nn.Linear`.
        buckets: from 1 to the number of weights.
        seed: of the hash.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self, in_features: int, out_features: int, buckets: int, bias: bool = True, *, seed: int = 0
    ) -> None:
        layer = nn.Linear(in_features, out_features, bias)
        super().__init__(layer, buckets, seed)
        with torch.no_grad():
            self.values.uniform_(-(in_features**-0.5), in_features**-0.5)

    @classmethod
    def from_linear(cls, layer: nn.Linear, buckets: int, *, seed: int = 0) -> "HashedLinear":
        """The nearest hashed layer to a layer, which stays as it is.

        Raises:
            ValueError: it is no plain linear layer, or a number is out of range.
        """
        check_layer(layer, nn.Linear)
        return cls._of(layer, buckets, seed)


class HashedConv2d(Hashed):
    """A convolution with so many numbers as its weight.

    Args:
        buckets: from 1 to the number of weights.
        seed: of the hash.
        given, options: as of `nn.Conv2d`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, *given: Any, buckets: int, seed: int = 0, **options: Any) -> None:
        layer = nn.Conv2d(*given, **options)
        super().__init__(layer, buckets, seed)
        bound = layer.weight[0].numel() ** -0.5
        with torch.no_grad():
            self.values.uniform_(-bound, bound)

    @classmethod
    def from_conv(cls, layer: nn.Conv2d, buckets: int, *, seed: int = 0) -> "HashedConv2d":
        """The nearest hashed convolution to one, which stays as it is.

        Raises:
            ValueError: it is no plain convolution, or a number is out of range.
        """
        check_layer(layer, nn.Conv2d)
        return cls._of(layer, buckets, seed)
