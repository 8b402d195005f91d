"""What a network costs on paper: multiply-adds times bits, and memory with all that goes with it.

Roth et al., section on hardware: bit operations are MACs x bits of weights x bits of activations;
memory is codes, and what says which weights are left and what codes mean; activations peak where a
layer's input and output are largest together.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smallnets.checks import between, one_of, whole
from smallnets.measure.layers import LayerSize, layer_sizes
from smallnets.prune.sparse.storage import bits_of_bitmap, bits_of_gaps
from smallnets.quantize.modules import Quantizer, widths
from smallnets.structure.shared import SharedWeight

STORAGES = ("dense", "bitmap", "gaps", "smallest")


@dataclass(frozen=True)
class Cost:
    """What one pass over one example costs.

    Attributes:
        parameters: of the network, learned steps and other parameters of quantisers left out.
        nonzero: those that are not 0.
        macs: multiply-adds.
        nonzero_macs: multiply-adds with weights that are not 0.
        bit_operations: sum of multiply-adds times both widths.
        weight_bits: of all parameters as stored.
        activation_peak: most numbers that a layer reads and writes.
        activation_bits: most bits of them, each layer's at the width of its input.
    """

    parameters: int
    nonzero: int
    macs: int
    nonzero_macs: int
    bit_operations: int
    weight_bits: int
    activation_peak: int
    activation_bits: int

    @property
    def bytes(self) -> int:
        """Of all parameters as stored, rounded up."""
        return math.ceil(self.weight_bits / 8)


def cost(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    bits: Mapping[str, tuple[int, int]] | None = None,
    storage: str = "smallest",
) -> Cost:
    """Count a network, quantised or not.

    Args:
        model: takes a batch `(n, *input_shape)` of floats. Quantised layers of
            `smallnets.quantize.modules` say themselves how many bits they have, and layers of
            `smallnets.structure` that share weights what stands for these.
        input_shape: one example's shape.
        bits: layer -> (bits of its weight, bits of its input), of layers that are not quantised.
        storage: how weights of layers are stored that have zeros: "dense", "bitmap" (a bit a
            weight, and the others), "gaps" (the others, each with its distance from the one
            before), or the "smallest" of them, layer by layer. Biases and norms have 32 bits.

    Raises:
        ValueError: an unknown layer or storage, bits out of range, a shape that the network does
            not take.
    """
    one_of("storage", storage, STORAGES)
    sizes = sizes_of(model, input_shape)
    wide = {**widths(model), **_given(bits, sizes)}
    totals = [_layer(model.get_submodule(one.name), one, wide, storage) for one in sizes]
    peaks = [
        (one.inputs + one.outputs, (one.inputs + one.outputs) * wide.get(one.name, (32, 32))[1])
        for one in sizes
    ]
    return Cost(
        sum(one.parameters for one in sizes),
        sum(total[0] for total in totals),
        sum(one.macs for one in sizes),
        sum(total[1] for total in totals),
        sum(one.macs * math.prod(wide.get(one.name, (32, 32))) for one in sizes),
        sum(total[2] for total in totals),
        max((peak for peak, _ in peaks), default=0),
        max((peak for _, peak in peaks), default=0),
    )


def sizes_of(model: nn.Module, input_shape: tuple[int, ...]) -> list[LayerSize]:
    """`layer_sizes`, without the quantisers within quantised layers."""
    return [
        one
        for one in layer_sizes(model, input_shape)
        if not isinstance(model.get_submodule(one.name), Quantizer)
    ]


def _given(
    bits: Mapping[str, tuple[int, int]] | None, sizes: list[LayerSize]
) -> dict[str, tuple[int, int]]:
    names = [one.name for one in sizes]
    for name, pair in (bits or {}).items():
        if name not in names:
            raise ValueError(f"bits must name layers ({', '.join(names)}); got {name!r}")
        if isinstance(pair, int) or len(pair) != 2:
            raise ValueError(f"bits of layer {name!r} must be two widths; got {pair!r}")
        for one in pair:
            between(f"bits of layer {name!r}", whole(f"bits of layer {name!r}", one, 1), 1, 32)
    return dict(bits or {})


def _layer(
    module: nn.Module, size: LayerSize, known: Mapping[str, tuple[int, int]], storage: str
) -> tuple[int, int, int]:
    """Parameters that are not 0, multiply-adds with them, and bits of all."""
    own = dict(module.named_parameters(recurse=False))
    nonzero = sum(int(torch.count_nonzero(one)) for one in own.values())
    macs, wide = size.macs, known.get(size.name, (32, 32))[0]
    if isinstance(module, SharedWeight):
        bias = 0 if module.bias is None else module.bias.numel()
        with torch.no_grad():
            values = module.looked_up()
        macs = round(macs * int(torch.count_nonzero(values)) / values.numel())
        return nonzero, macs, math.ceil(module.stored_bits(wide)) + 32 * bias
    weight = own.pop("weight", None)
    bits = 32 * sum(one.numel() for one in own.values())
    if weight is not None and weight.dim() > 1:
        values = weight.detach()
        quantizer = getattr(module, "w_quant", None)
        if quantizer is not None and quantizer.bits < 32 and bool(quantizer.started):
            codes = quantizer.codes(weight)
            values = codes.values
            bits += codes.stored_bits - codes.codes.numel() * codes.bits
            nonzero += int(torch.count_nonzero(values)) - int(torch.count_nonzero(weight))
        bits += storage_bits(values, wide, storage)
        macs = round(macs * int(torch.count_nonzero(values)) / values.numel())
    elif weight is not None:
        bits += 32 * weight.numel()
    return nonzero, macs, bits


def storage_bits(weight: Tensor, bits: int = 32, storage: str = "smallest") -> int:
    """Bits that a weight takes, see `cost`."""
    one_of("storage", storage, STORAGES)
    found = {"dense": weight.numel() * whole("bits", bits, 1)}
    if storage != "dense":
        found["bitmap"] = bits_of_bitmap(weight, bits)
        found["gaps"] = bits_of_gaps(weight, bits)
    return min(found.values()) if storage == "smallest" else found[storage]
