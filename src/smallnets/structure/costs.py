"""What a network with structured layers stores and multiplies."""

from math import prod

import torch
from torch import nn

from smallnets import measure
from smallnets.checks import above
from smallnets.measure.evaluation import evaluating, example_input
from smallnets.structure.circulant import CirculantLinear
from smallnets.structure.shared import SharedWeight


def stored_bits(network: nn.Module, bits: float = 32) -> float:
    """Bits that a network takes: its parameters, and the indices of its code books.

    Hashes are computed, so they take none.

    Args:
        network: with or without structured layers.
        bits: of a number, whether a weight, a centroid or a bias; fractions are allowed.

    Raises:
        ValueError: bits are not above 0.
    """
    above("bits", bits, 0)
    shared = [one for one in network.modules() if isinstance(one, SharedWeight)]
    looked_up = {id(p) for one in shared for p in one.parameters() if p is not one.bias}
    others = sum(p.numel() for p in network.parameters() if id(p) not in looked_up)
    return others * bits + sum(one.stored_bits(bits) for one in shared)


def multiply_adds(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds of one pass over one example: `smallnets.measure.macs`, with the Fourier
    transforms of circulant layers, which that does not see, counted by their closed form.

    Args:
        network: takes a batch (n, *input_shape).
        input_shape: of one example.

    Raises:
        ValueError: a side of the shape is below 1.
    """
    extra = 0

    def add(layer: CirculantLinear, inputs: tuple[torch.Tensor], _: object) -> None:
        nonlocal extra
        products = prod(layer.columns.shape[:2]) * (layer.block // 2 + 1)
        rows = inputs[0].numel() // layer.in_features
        extra += rows * (layer.transform_macs - products)  # these the counter has seen

    hooks = [
        one.register_forward_hook(add)
        for one in network.modules()
        if isinstance(one, CirculantLinear)
    ]
    try:
        with evaluating(network), torch.no_grad():
            if hooks:
                network(example_input(network, input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return measure.macs(network, input_shape) + extra
