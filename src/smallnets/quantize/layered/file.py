"""The layered file: what is sent first is a working network, and every further layer refines it.

    "SNVL", version, size and checksum of the header                       16 bytes
    header                                                                  compressed JSON
    base     float layers, basic layer of all tensors, what belongs to the lowest width
    layer b  enhance layer b of all tensors, for b = low + 1 .. H

The order is precision first, so a file that is cut anywhere behind the base is a network of fewer
bits. Steps and BatchNorms of a trained width travel in the first layer above the next lower trained
width, because untrained widths in between use them, too. Every section has a checksum (CRC-32).
"""

import copy
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smallnets.quantize.layered.codes import NESTED
from smallnets.quantize.layered.fake import CascadeQuantizer, WeightRule
from smallnets.quantize.layered.network import (
    LAYERS,
    LayeredNetwork,
    SwitchBatchNorm,
    to_layered,
)
from smallnets.quantize.layered.packing import LayeredTensor, layer_bytes, pack_layered
from smallnets.quantize.layered.steps import SMALLEST
from smallnets.storage import atomic_path

MAGIC, VERSION = b"SNVL", 1
START = struct.Struct("<4sIII")


class LayeredFileError(ValueError):
    """A layered file is cut, corrupt, or not one."""


@dataclass(frozen=True)
class Layout:
    """Where the layers of a file lie.

    Attributes:
        header: what the file says about itself.
        begin: width -> first byte of its section.
        end: width -> first byte after it: so many bytes have to arrive for that width.
        size: bytes of the complete file.
    """

    header: Mapping[str, Any]
    begin: Mapping[int, int]
    end: Mapping[int, int]
    size: int


def save_layered(network: LayeredNetwork, path: Path | str) -> Layout:
    """Write a layered network, atomically, and return where its layers lie.

    Raises:
        ValueError: quantisers other than layered ones, a rule whose codes do not nest, or
            activation steps that have not started.
    """
    data, layout = layered_bytes(network)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(data)
    return layout


def layered_bytes(network: LayeredNetwork) -> tuple[bytes, Layout]:
    """The content of the file that `save_layered` writes, and where its layers lie."""
    if not all(getattr(layer.inputs, "started", True) for _, layer in network.layers()):
        raise ValueError("activation steps have no start; call network.start(images) first")
    quantizers = {name: layer.weights for name, layer in network.layers()}
    for name, one in quantizers.items():
        if not isinstance(one, CascadeQuantizer) or one.how.rule not in NESTED:
            rule = one.how.rule if isinstance(one, CascadeQuantizer) else type(one).__name__
            raise ValueError(f"a layered file needs the rule mid or plain; {name} has {rule}")
    state = network.network.state_dict()
    owners = owning_widths(network)
    low, high = network.lowest, network.highest
    layers = dict(network.layers())
    planes: dict[int, list[bytes]] = {bits: [] for bits in range(low, high + 1)}
    codes = {
        name: layer.weights.codes(layer.layer.weight)
        if layer.weights.stored is None
        else layer.weights.stored
        for name, layer in layers.items()
    }
    for one in codes.values():
        packed = pack_layered(one, high, low)
        planes[low].append(packed.base)
        for bits, plane in packed.planes.items():
            planes[bits].append(plane)
    sections, content = [], []
    for bits in range(low, high + 1):
        names = [key for key, owner in owners.items() if first_layer(network, owner) == bits]
        tensors = [(key, list(state[key].shape)) for key in names]
        floats = b"".join(_floats(state[key], least_of(key)) for key in names)
        section = floats + b"".join(planes[bits])
        entry = {"bits": bits, "bytes": len(section), "crc": zlib.crc32(section)}
        sections.append({**entry, "tensors": tensors})
        content.append(section)
    first = next(iter(layers.values()))
    kept = network.network
    header = {
        "widths": list(network.widths),
        "low": low,
        "high": high,
        "how": asdict(first.weights.how),
        "shapes": {name: list(one.shape) for name, one in codes.items()},
        "norms": "own" if any(isinstance(m, SwitchBatchNorm) for m in kept.modules()) else "shared",
        "signed": {name: _sign(layer.inputs) for name, layer in layers.items()},
        "count": getattr(first.inputs, "count", None),
        "sections": sections,
    }
    head = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    start = START.pack(MAGIC, VERSION, len(head), zlib.crc32(head))
    data = b"".join([start, head, *content])
    return data, read_layout(data)


def owning_widths(network: LayeredNetwork) -> dict[str, int | None]:
    """Names of all float tensors of a file -> the trained width that alone needs it, or None.

    Weights that are stored as codes, counters and flags are not among them.
    """
    net = network.network
    first = {name for name, _ in net.named_modules()}  # a module at two places is stored once
    owners: dict[str, int | None] = {
        key: None
        for key, value in net.state_dict().items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and key.rpartition(".")[0] in first
    }
    for name, layer in network.layers():
        owners.pop(f"{name}.layer.weight", None)
        owners[f"{name}.weights.step"] = (
            None if layer.weights.how.steps == "tied" else network.widths[0]
        )
        for part in ("weights", "inputs"):
            for bits in network.widths:
                if f"{name}.{part}.steps.{bits}" in owners:
                    owners[f"{name}.{part}.steps.{bits}"] = bits
    for name, module in net.named_modules():
        if isinstance(module, SwitchBatchNorm):
            for key in owners:
                for bits in module.widths:
                    if key.startswith(f"{name}.norms.{bits}."):
                        owners[key] = bits
    return owners


def first_layer(network: LayeredNetwork, owner: int | None) -> int:
    """The layer that brings what a trained width owns: the first above the next lower one."""
    lower = [bits for bits in network.widths if owner is not None and bits < owner]
    return max(lower) + 1 if lower else network.lowest


def read_layout(data: bytes) -> Layout:
    """Read the header at the beginning of a file's content.

    Raises:
        LayeredFileError: too short, another kind of file or version, or a corrupt header.
    """
    if len(data) < START.size or data[:4] != MAGIC:
        if data[:4] == MAGIC[: len(data)]:
            raise LayeredFileError(f"the file is cut inside its first {START.size} bytes")
        raise LayeredFileError(f"not a layered file: it begins with {data[:4]!r}, not {MAGIC!r}")
    _, version, size, checksum = START.unpack(data[: START.size])
    if version != VERSION:
        raise LayeredFileError(f"version must be {VERSION}; the file has {version}")
    packed = data[START.size : START.size + size]
    if len(packed) < size:
        raise LayeredFileError(f"the file is cut inside its header, {len(packed)} of {size} bytes")
    if zlib.crc32(packed) != checksum:
        raise LayeredFileError("the header is corrupt: its checksum differs")
    header = json.loads(zlib.decompress(packed))
    place = START.size + size
    begin, end = {}, {}
    for section in header["sections"]:
        begin[section["bits"]] = place
        place += section["bytes"]
        end[section["bits"]] = place
    return Layout(header, begin, end, place)


def received(data: bytes, layout: Layout) -> int:
    """The width that the bytes are good for; 0 before the base is complete."""
    return max((bits for bits, end in layout.end.items() if end <= len(data)), default=0)


def load_layered(
    source: Path | str | bytes,
    model: nn.Module,
    bits: int | None = None,
    max_bytes: int | None = None,
) -> LayeredNetwork:
    """The network of a layered file, in evaluation mode, set to its highest width.

    Args:
        source: a file, or the bytes that have arrived.
        model: of the architecture that was saved; its weights do not matter, and it is left alone.
        bits: read the layers up to this width and nothing behind them; by default as many as are
            there in full.
        max_bytes: read no more than this from the beginning.

    Returns:
        A network without float copies of its quantised weights. Its `highest` is what was read.

    Raises:
        LayeredFileError: a layer that is needed is cut or corrupt; the message names it.
        ValueError: a width that the file does not have, or a model of another architecture.
    """
    data = _content(source, bits, max_bytes)
    layout = read_layout(data)
    header = layout.header
    low, high = header["low"], header["high"]
    if bits is not None and not low <= bits <= high:
        raise ValueError(f"the file has widths from {low} to {high} bits; got {bits}")
    if len(data) > layout.size:
        raise LayeredFileError(
            f"the file must have {layout.size} bytes; it has {len(data) - layout.size} more"
        )
    there = received(data, layout)
    if there == 0 or (bits or 0) > there:
        wanted = there + 1 if there else low
        name = f"layer {wanted}" if there else "the base"
        have = len(data) - layout.begin[wanted]
        raise LayeredFileError(
            f"the file is cut inside {name}: "
            f"{max(have, 0)} of {layout.end[wanted] - layout.begin[wanted]} bytes are there"
        )
    network = _empty(model, header)
    _fill(network, data, layout, bits or there)
    return network


def _content(source: Path | str | bytes, bits: int | None, most: int | None) -> bytes:
    """The beginning of a file, or of bytes, that is wanted: of a file no more is read."""
    if isinstance(source, bytes):
        return source[:most]
    size = Path(source).stat().st_size if most is None else most
    with Path(source).open("rb") as file:
        start = file.read(min(size, START.size))
        if bits is None or len(start) < START.size or start[:4] != MAGIC:
            return start + file.read(size - len(start))
        start += file.read(min(size - len(start), START.unpack(start)[2]))
        end = read_layout(start).end.get(bits, size)
        return start + file.read(max(min(size, end) - len(start), 0))


def _empty(model: nn.Module, header: Mapping[str, Any]) -> LayeredNetwork:
    """The architecture in layers, to be filled."""
    shapes = header["shapes"]
    found = {n: list(m.weight.shape) for n, m in model.named_modules() if n in shapes}
    if found != shapes:
        wrong = next(name for name in shapes if found.get(name) != shapes[name])
        raise ValueError(
            f"the model does not fit the file: {wrong} must have a weight of shape "
            f"{shapes[wrong]}; got {found.get(wrong)}"
        )
    others = [n for n, m in model.named_modules() if isinstance(m, LAYERS) and n not in shapes]
    network = to_layered(
        _with_some_weights(model, shapes),
        header["widths"],
        weights=WeightRule(**header["how"]),
        keep_float=others,
        norms=header["norms"],
        activations=header["count"] is not None,
        count=header["count"] or "batch",
    )
    for name, layer in network.layers():
        if layer.inputs is not None:
            layer.inputs.signed, layer.inputs.started = header["signed"][name], True
    return network


def _with_some_weights(model: nn.Module, shapes: Mapping[str, Any]) -> nn.Module:
    """A copy whose weights to be quantised are not zero, so that steps can start."""
    filled = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name in shapes:
            filled.get_submodule(name).weight.fill_(1.0)
    return filled


def _fill(network: LayeredNetwork, data: bytes, layout: Layout, bits: int) -> None:
    header, shapes = layout.header, layout.header["shapes"]
    low = header["low"]
    state = network.network.state_dict()
    layers: dict[str, dict[int, bytes]] = {name: {} for name in shapes}
    for section in header["sections"]:
        if (width := section["bits"]) > bits:
            break
        content = data[layout.begin[width] : layout.end[width]]
        if zlib.crc32(content) != section["crc"]:
            name = "the base" if width == low else f"layer {width}"
            raise LayeredFileError(f"{name} is corrupt: its checksum differs")
        place = 0
        for key, shape in section["tensors"]:
            size = 4 * prod(shape)
            if key not in state or list(state[key].shape) != shape:
                raise ValueError(f"the model does not fit the file: {key} must be {shape}")
            values = np.frombuffer(content, "<f4", prod(shape), place).astype(np.float32)
            state[key].copy_(torch.from_numpy(values).reshape(shape))
            place += size
        for name, shape in shapes.items():
            size = layer_bytes(prod(shape), low if width == low else 1)
            layers[name][width] = content[place : place + size]
            place += size
    for name, layer in network.layers():
        base, shape = layers[name].pop(low), tuple(shapes[name])
        codes = LayeredTensor(base, layers[name], shape, header["high"], low).codes(bits)
        layer.weights.store(codes.to(layer.weights.step.device), bits)
        layer.layer.register_parameter("weight", None)
        for part in (layer.weights, layer.inputs):
            for step in part.parameters() if part is not None else ():
                if not (step > 0).all() or not step.isfinite().all():
                    raise LayeredFileError(f"the steps of {name} must be finite and above 0")
    network.highest = bits
    network.set_width(bits).eval()


def least_of(key: str) -> float:
    """The smallest value that a tensor of this name may hold: steps are above 0."""
    steps = key.endswith("weights.step") or ".steps." in key
    return SMALLEST if steps else -torch.inf


def _floats(tensor: Tensor, least: float) -> bytes:
    return (
        tensor.detach().clamp_min(least).cpu().contiguous().float().numpy().astype("<f4").tobytes()
    )


def _sign(inputs: nn.Module | None) -> bool | None:
    return getattr(inputs, "signed", None)
