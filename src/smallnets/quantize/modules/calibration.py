"""Where the grids of activations lie, from what layers read in floating point."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.losses import to_float32
from smallnets.measure import evaluating
from smallnets.quantize.modules.base import Quantizer
from smallnets.quantize.modules.layers import quantized_layers

SAMPLE = 8192  # values of one batch and layer that decide where an activation's grid lies


@contextmanager
def in_float(network: nn.Module) -> Iterator[None]:
    """Inside the block all quantisers let tensors through untouched."""
    quantisers = [module for module in network.modules() if isinstance(module, Quantizer)]
    before = [one.passing for one in quantisers]
    for one in quantisers:
        one.passing = True
    try:
        yield
    finally:
        for one, passed in zip(quantisers, before, strict=True):
            one.passing = passed


@torch.no_grad()
def layer_inputs(
    network: nn.Module, batches: Tensor | Batches | Source, sample: int = SAMPLE
) -> dict[str, Tensor]:
    """A sample of the values that each quantised layer reads, (n,) by name of the layer.

    Of every batch at most `sample` values of a layer, evenly spaced, and the smallest and the
    largest one. The network computes in floating point and in evaluation mode meanwhile.

    Args:
        network: made by `quantize_model`.
        batches: inputs (n, ...) as one tensor, a loader, or batches, with or without labels.

    Raises:
        ValueError: no batch, or one that is not of tensors.
    """
    checks.whole("sample", sample, 1)
    layers = quantized_layers(network)
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def look(name: str, given: Tensor) -> None:
        values = to_float32(given.detach()).flatten()
        if values.numel() > sample:
            ends = torch.stack([values.min(), values.max()])
            values = torch.cat([values[:: -(-values.numel() // sample)], ends])
        seen[name].append(values.clone())
        if len(seen[name]) > 128:  # a long loader: thin out what has been seen
            values = torch.cat(seen[name])
            seen[name][:] = [torch.stack([values.min(), values.max()]), values[::2]]

    hooks = [
        layer.register_forward_pre_hook(partial(lambda name, _, args: look(name, args[0]), name))
        for name, layer in layers.items()
    ]
    given = [batches] if isinstance(batches, Tensor) else batches
    read = given if isinstance(given, Batches) else Batches(given)
    try:
        with evaluating(network), in_float(network):
            for inputs, _ in read.without_labels().on(network):
                network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(values) for name, values in seen.items() if values}


def calibrate(network: nn.Module, batches: Tensor | Batches | Source) -> nn.Module:
    """Start the quantisers of all activations anew, from what layers read in floating point.

    Frozen ones stay. The network is returned, its modes as they were.

    Args and Raises: as `layer_inputs`; and a layer whose input a quantiser cannot start from.
    """
    layers = quantized_layers(network)
    for name, values in layer_inputs(network, batches).items():
        quantizer = layers[name].a_quant
        if quantizer is None or bool(quantizer.frozen):
            continue
        try:
            quantizer.start(values)
        except ValueError as error:
            raise ValueError(f"input of layer {name!r}: {error}") from None
    return network
