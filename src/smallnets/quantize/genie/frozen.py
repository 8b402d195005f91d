"""What is deployed: integers, steps and zero points, and the network that they make again."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from smallnets.quantize.genie.network import QUANTIZERS, QuantizedNetwork
from smallnets.quantize.rounding import integer_range

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
        ValueError: the state belongs to another network or to other widths; the message names what
            differs, and nothing is changed. Weights may have been of fewer bits.
    """
    _check(network, state)
    for name, weights in network.weights.items():
        codes = state[f"{name}.codes"]
        zero = state[f"{name}.zero"].to(weights.zero)
        weights.mode = "adaround"
        weights.zero.copy_(zero)
        weights.step.data.copy_(state[f"{name}.step"])
        weights.base.copy_(codes.to(weights.base) - zero)
        weights.logit.data.fill_(-1)
    for key, quantizer in _activations(network).items():
        quantizer.step.data.copy_(state[f"activation.{key}.step"])
        quantizer.signed = bool(state[f"activation.{key}.low"] < 0)
        quantizer.ready = True
    return network


def _check(network: QuantizedNetwork, state: Mapping[str, Tensor]) -> None:
    expected = {f"{name}.{part}" for name in network.weights for part in ("codes", "step", "zero")}
    expected |= {
        f"activation.{key}.{part}"
        for key in _activations(network)
        for part in ("step", "low", "high")
    }
    if expected != set(state):
        odd = sorted(expected ^ set(state))
        raise ValueError(f"the state must hold this network's tensors; it differs in {odd[0]}")
    for name, weights in network.weights.items():
        codes, shape = state[f"{name}.codes"], tuple(weights.weight.shape)
        if tuple(codes.shape) != shape:
            raise ValueError(f"{name}.codes must have shape {shape}; got {tuple(codes.shape)}")
        if int(codes.max()) > weights.high:
            raise ValueError(
                f"{name}.codes must be at most {weights.high} ({weights.bits} bits); "
                f"got {int(codes.max())}"
            )
    for key, quantizer in _activations(network).items():
        limits = tuple(int(state[f"activation.{key}.{part}"]) for part in ("low", "high"))
        possible = [integer_range(quantizer.bits, signed) for signed in (False, True)]
        if limits not in possible:
            raise ValueError(
                f"the codes of activation {key} must be those of {quantizer.bits} bits; "
                f"got {limits[0]} to {limits[1]}"
            )
