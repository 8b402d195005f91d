"""A network as a file: codes of few bits side by side, and of sparse weights only those that are
left.
"""

from collections.abc import Mapping
from math import ceil, log2
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smallnets.quantize.genie.network import QuantizedNetwork
from smallnets.quantize.genie.quantizers import QuantizedLayer
from smallnets.quantize.modules.layers import QUANTIZED
from smallnets.structure import pack_codes, packed_state

SPARSE = 1 / 16  # share of zeros from which on a bitmap is worth its bit a weight


def stored(
    network: nn.Module, bits: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Tensor]:
    """The tensors of a file that holds a network, by name.

    Args:
        network: with quantised layers or code books, or with zeros among its weights.
        bits: layer -> (bits of its weight, bits of its input), of plain layers whose weights have
            so few values that they fit.
    """
    integers = isinstance(network, QuantizedNetwork)
    found = _tensors(network) if integers else packed_state(network)
    counts = [name for name in found if name.endswith("num_batches_tracked")]
    for name in counts:  # no network needs them to answer
        del found[name]
    for name, module in network.named_modules():
        place = f"{name}.weight".lstrip(".")
        if isinstance(module, QuantizedLayer):
            _drop(found, name)
            found |= _integers(name, module)
        elif isinstance(module, QUANTIZED) and module.w_quant is not None:
            _drop(found, f"{name}.w_quant")
            found |= _codes(place, module)
        elif place in found and found[place].dim() > 1:
            wide = (bits or {}).get(name, (32, 32))[0]
            weight = found.pop(place)
            found |= _few_values(place, weight) if wide < 32 else _sparse(place, weight)
    return {name: one.contiguous() for name, one in found.items()}


def file_bytes(network: nn.Module, bits: Mapping[str, tuple[int, int]] | None = None) -> int:
    """Size of a file that holds a network, see `stored`; it is written and removed again."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.safetensors"
        save_file(stored(network, bits), file)
        return file.stat().st_size


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """A state without what is no tensor, such as how far quantisers have come."""
    state = network.state_dict()
    return {name: one.detach() for name, one in state.items() if isinstance(one, Tensor)}


def _drop(found: dict[str, Tensor], prefix: str) -> None:
    for name in [one for one in found if one.startswith(f"{prefix}.")]:
        del found[name]


def _codes(place: str, layer: nn.Module) -> dict[str, Tensor]:
    codes = layer.weight_codes()  # type: ignore[operator]
    least = int(codes.codes.min())
    packed = pack_codes(codes.codes - least, codes.bits)
    meaning = {"scale": codes.scale, "zero": codes.zero - least}
    if codes.table is not None:
        meaning = {"table": codes.table}
    elif not bool((codes.zero != 0).any()):
        meaning = {"scale": codes.scale, "zero": torch.tensor(-least)}
    return {place: packed} | {f"{place}.{name}": one.detach() for name, one in meaning.items()}


def _integers(name: str, layer: QuantizedLayer) -> dict[str, Tensor]:
    weights = layer.weights
    codes = torch.round(weights().detach() / weights.step.detach())
    found = {f"{name}.weight": codes.to(torch.int8), f"{name}.step": weights.step.detach()}
    bias = getattr(layer.layer, "bias", None)
    return found if bias is None else found | {f"{name}.bias": bias.detach()}


def _few_values(place: str, weight: Tensor) -> dict[str, Tensor]:
    values, codes = weight.unique(return_inverse=True)
    packed = pack_codes(codes, max(1, ceil(log2(len(values)))))
    return {place: packed, f"{place}.table": values}


def _sparse(place: str, weight: Tensor) -> dict[str, Tensor]:
    there = weight != 0
    if bool(there.float().mean() > 1 - SPARSE):
        return {place: weight}
    return {place: pack_codes(there.int(), 1), f"{place}.values": weight[there]}
