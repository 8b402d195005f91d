"""A quantised network as a file of the size that its bits promise: packed codes in safetensors."""

import json
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from smallnets.packing import pack_codes, unpack_codes
from smallnets.quantize.modules.base import Codes, Quantizer
from smallnets.quantize.modules.layers import quantized_layers
from smallnets.storage import atomic_path, one_line, user_path

PARTS = ("scale", "zero", "table")


class StoredWeight(Quantizer):
    """A weight that was read from a file: it is what its codes say, whatever is put in."""

    value: Tensor

    def __init__(self, codes: Codes) -> None:
        super().__init__(codes.bits)
        self.stored = codes
        self.register_buffer("value", codes.values)
        self.freeze()

    def quantize(self, x: Tensor) -> Tensor:
        """The stored values, without a gradient."""
        return self.value.to(x.dtype)

    def _codes(self, x: Tensor) -> Codes:
        return self.stored


def save_quantized(network: nn.Module, path: str | Path) -> int:
    """Write a network with each quantised weight in as many bits as it has, and return the bytes.

    All else (biases, norms, grids of activations, layers that are not quantised) is stored as it
    is.

    Args:
        network: made by `quantize_model`, all of its quantisers started.
        path: of the file, which is written whole or not at all.

    Raises:
        ValueError: a quantiser without a start, or a path that cannot be written.
    """
    tensors, about = {}, {}
    left_out: tuple[str, ...] = ()
    for name, layer in quantized_layers(network).items():
        if layer.w_quant is None or layer.w_quant.bits == 32:
            continue
        try:
            codes = layer.weight_codes()
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from None
        lowest = int(codes.codes.min())
        tensors[f"{name}.codes"] = pack_codes(codes.codes - lowest, codes.bits)
        about[name] = {"bits": codes.bits, "shape": list(codes.codes.shape), "lowest": lowest}
        for part in PARTS[2:] if codes.table is not None else PARTS[:2]:
            tensors[f"{name}.{part}"] = getattr(codes, part).cpu().contiguous().clone()
        left_out += (f"{name}.weight", f"{name}.w_quant.")
    for key, value in network.state_dict().items():
        if not key.startswith(left_out) or not left_out:
            tensors[f"state.{key}"] = value.detach().cpu().contiguous().clone()
    target = user_path(path)
    try:
        with atomic_path(target) as temporary:
            save_file(tensors, temporary, {"quantised": json.dumps(about)})
        return target.stat().st_size
    except OSError as error:
        raise ValueError(f"{target} cannot be written ({one_line(error)})") from None


def load_quantized(path: str | Path, network: nn.Module) -> nn.Module:
    """Read what `save_quantized` wrote into a network of the same layers, in place.

    Args:
        path: of the file.
        network: made by `quantize_model` with the same settings, trained or not. Its quantised
            weights are those of the file from then on, and learn no more.

    Raises:
        ValueError: no such file, another kind of file, or a network of other layers.
    """
    source = user_path(path)
    try:
        with safe_open(source, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            about = json.loads((file.metadata() or {})["quantised"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{source} is no file of a quantised network ({one_line(error)})"
        ) from None
    layers = quantized_layers(network)
    for name, one in about.items():
        if name not in layers or list(layers[name].weight.shape) != one["shape"]:
            raise ValueError(
                f"the network must have the layers of the file; {name!r} with a weight "
                f"{tuple(one['shape'])} is not among its quantised ones"
            )
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    known = tuple(part for name in about for part in (f"{name}.weight", f"{name}.w_quant."))
    own = {key for key in network.state_dict() if not key.startswith(known)}
    if own != state.keys():
        raise ValueError(
            f"the network must have the layers of the file; {sorted(own ^ state.keys())[0]} is in "
            "one of them alone"
        )
    try:
        network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(
            f"the network must have the layers of the file; {one_line(error)[:300]}"
        ) from None
    for name, one in about.items():
        layer = layers[name]
        made = StoredWeight(_codes(name, one, tensors)).to(layer.weight.device)
        layer.w_quant = made.train(layer.training)
        layer.weight.data = made.value.to(layer.weight.dtype).clone()
        layer.weight.requires_grad_(False)
    return network


def _codes(name: str, about: dict[str, Any], tensors: dict[str, Tensor]) -> Codes:
    bits, shape = about["bits"], about["shape"]
    found = unpack_codes(tensors[f"{name}.codes"], bits, prod(shape)).view(shape) + about["lowest"]
    table = tensors.get(f"{name}.table")
    one = torch.ones((), dtype=torch.float32)
    return Codes(
        found if bits > 16 else found.int(),
        bits,
        tensors.get(f"{name}.scale", one),
        tensors.get(f"{name}.zero", 0 * one),
        table,
    )
