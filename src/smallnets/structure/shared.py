"""Layers whose weights are looked up: many positions of a weight share one number."""

from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.structure.layers import Layer, Movement, dense_conv, dense_linear


class SharedWeight(nn.Module):
    """A linear layer or convolution whose weight is made anew, from fewer numbers, in every pass.

    Its gradient by a number is therefore the sum over all positions that share it. A pass costs as
    many multiply-adds as that of the dense layer. An exported file holds the dense weight.

    Args:
        layer: says shape, movement and whether there is a bias, which is copied.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weight_shape = tuple(layer.weight.shape)
        self.stride = tuple(getattr(layer, "stride", ()))
        self.movement = Movement.of(layer) if isinstance(layer, nn.Conv2d) else None
        self.groups = getattr(layer, "groups", 1)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    @property
    def size(self) -> int:
        """Positions of the weight."""
        return prod(self.weight_shape)

    def looked_up(self) -> Tensor:
        """The dense weight, in its shape, with its graph."""
        raise NotImplementedError

    def stored_bits(self, bits: float) -> float:
        """Bits that stand for the weight, where a number takes `bits`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """As the dense layer."""
        weight = self.looked_up()
        if self.movement is None:
            return F.linear(x, weight, self.bias)
        return self.movement(x, weight, self.bias, self.groups)

    def dense(self) -> Any:
        """A layer that holds the dense weight."""
        weight = self.looked_up()
        if self.movement is None:
            return dense_linear(weight, self.bias, self)
        return dense_conv(weight, self.bias, self, self.groups, self.movement.options)
