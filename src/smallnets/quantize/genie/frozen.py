"""What is deployed: integers, steps and zero points, and the network that they make again."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from smallnets.quantize.genie.network import QUANTIZERS, QuantizedNetwork

State = dict[str, Tensor]


def export(network: QuantizedNetwork) -> State:
    """A finished network's quantised part as plain tensors, for safetensors or any runtime.

    Returns:
        For every layer "NAME.codes" (uint8, or int32 above 8 bits; from 0 to 2^bits - 1),
        "NAME.step" and "NAME.zero" (channels, 1, ...), and for every quantised tensor
        "activation.NAME.step" (), ".low" and ".high" (its codes' limits). A weight is
        step * (codes - zero).

    Raises:
        ValueError: the steps of activations have not been found yet.
    """
    state: State = {}
    for name, weights in network.weights.items():
        kind = torch.uint8 if weights.bits <= 8 else torch.int32
        state[f"{name}.codes"] = weights.codes.to(kind)
        state[f"{name}.step"] = weights.step.detach().clone()
        state[f"{name}.zero"] = weights.zero.clone()
    for key, quantizer in _activations(network).items():
        if not quantizer.ready:
            raise ValueError(
                "the network must be calibrated or reconstructed before it is exported; "
                f"tensor {key} has no step yet"
            )
        low, high = quantizer.limits
        state[f"activation.{key}.step"] = quantizer.step.detach().clone()
        state[f"activation.{key}.low"] = torch.tensor(low)
        state[f"activation.{key}.high"] = torch.tensor(high)
    return state


def _activations(network: QuantizedNetwork) -> dict[str, nn.Module]:
    return dict(network.root.get_submodule(QUANTIZERS).named_children())


def restore(network: QuantizedNetwork, state: Mapping[str, Tensor]) -> QuantizedNetwork:
    """Put an exported state into a freshly quantised network of the same shape and widths.

    Its outputs are then the exporting network's, bit for bit.

    Raises:
        ValueError: the state belongs to another network; the message names what is missing.
    """
    expected = set(export(_ready(network)))
    if expected != set(state):
        odd = sorted(expected ^ set(state))
        raise ValueError(f"the state must hold this network's tensors; it differs in {odd[0]}")
    for name, weights in network.weights.items():
        codes = state[f"{name}.codes"]
        if codes.shape != weights.weight.shape:
            raise ValueError(
                f"{name}.codes must have shape {tuple(weights.weight.shape)}; "
                f"got {tuple(codes.shape)}"
            )
        zero = state[f"{name}.zero"].to(weights.zero)
        weights.mode = "adaround"
        weights.zero.copy_(zero)
        weights.step.data.copy_(state[f"{name}.step"])
        weights.base.copy_(codes.to(weights.base) - zero)
        weights.logit.data.fill_(-1)
    for key, quantizer in _activations(network).items():
        quantizer.step.data.copy_(state[f"activation.{key}.step"])
        quantizer.signed = bool(state[f"activation.{key}.low"] < 0)
    return network


def _ready(network: QuantizedNetwork) -> QuantizedNetwork:
    for quantizer in network.activations:
        quantizer.ready = True
    return network


def packed_bytes(network: QuantizedNetwork) -> int:
    """Bytes of the quantised weights at their own widths, with a float32 step and an 8-bit zero
    point a channel; biases and norms not counted.
    """
    bits = sum(
        one.weight.numel() * one.bits + one.step.numel() * (32 + 8)
        for one in network.weights.values()
    )
    return -(-bits // 8)
