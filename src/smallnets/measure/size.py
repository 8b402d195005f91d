"""How big a network is: parameters, multiply-adds, bytes."""

import math

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from smallnets.checks import above
from smallnets.measure.evaluation import evaluating, example_input


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included, shared ones once; buffers are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds of one forward pass over one example.

    Counted as they run: convolutions, transposed convolutions, linear layers and other matrix
    products (attention). Norms, activations, pooling and biases are free, as papers count.

    Args:
        model: takes a batch `(n, *input_shape)` of floats.
        input_shape: one example's shape, such as (3, 32, 32).

    Raises:
        ValueError: if a side of `input_shape` is below 1.
    """
    example = example_input(model, input_shape)
    counter = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), counter:
        model(example)
    return counter.get_total_flops() // 2  # torch counts a multiply-add as two operations


def weight_bytes(model: nn.Module, bits: float = 32) -> int:
    """Bytes that the parameters take at `bits` each (fractions allowed), rounded up.

    Raises:
        ValueError: unless `bits` is above 0.
    """
    return math.ceil(parameters(model) * above("bits", bits, 0) / 8)
