"""Weights in an exported file that take as little of it as they can.

A weight that has zeros, or few different values, is stored in fewer bits without any loss, beside
the operations that unpack it. ONNX Runtime does these once, as it opens the file, and computes as
fast as before, and not faster: this is about the size of a file. For integer arithmetic see
`smallnets.deploy.int8`.

    dense     32 n bits
    bitmap    n + 32 m                   m of n numbers are not 0, and a bit says which
    book      b n + 32 k                 k different numbers, and indices of b = 1, 2, 4 or 8 bits
    steps     8 n + 32 c                 8-bit integers, and a step for each of c channels
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from smallnets.checks import between, whole
from smallnets.deploy import onnx_runtime
from smallnets.deploy.files import File, parsed, read
from smallnets.quantize.uniform import nearest_codes, symmetric_grid
from smallnets.structure.codebook import k_means, start_centroids

UNPACKS = "unpack/"  # how the names of operations begin that only unpack
READERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FEWEST = 256  # numbers of a weight that is worth it


def pack(file: File) -> bytes:
    """The same network with every weight in its smallest form.

    Args:
        file: as of `export_checked`, in floating point.

    Returns:
        A file whose weights are the same to the last digit; see `unpack`.

    Raises:
        ValueError: no ONNX model.
    """
    model = parsed(file)
    for name, weight in _weights(model).items():
        form, bits = _smallest(weight)
        if form != "dense":
            _put(model, name, _packed(name, weight, form, bits))
    return _written(model)


def with_codebook(file: File, k: int) -> bytes:
    """A network whose weights have k values each, by k-means, packed.

    Args:
        file: as of `export_checked`, in floating point.
        k: from 2 to 256; weights of fewer numbers than 256 stay.

    Raises:
        ValueError: no ONNX model, a k out of range, or no weight that is large enough.
    """
    between("k", whole("k", k, 2), 2, 256)
    model = parsed(file)
    weights = _enough(_weights(model))
    for one in model.graph.initializer:
        if one.name in weights:
            values = torch.from_numpy(weights[one.name].copy())
            centroids, labels = k_means(values, start_centroids(values, k))
            one.CopyFrom(numpy_helper.from_array(centroids[labels].numpy(), one.name))
    return pack(_written(model))


def with_int8_weights(file: File) -> bytes:
    """A network whose weights are 8-bit integers in the file, each with the symmetric step of its
    output channel, and whose arithmetic stays in floating point.

    Args and Raises: as `pack`; or no weight that is large enough.
    """
    model = parsed(file)
    for name, weight in _enough(_weights(model)).items():
        axis = _channels(model, name)
        values = torch.from_numpy(weight.copy())
        rows = values if axis is None else values.transpose(0, axis)
        step = symmetric_grid(rows, 8, per_channel=axis is not None)
        codes = nearest_codes(rows, step, -127, 127)
        if axis is not None:
            codes, step = codes.transpose(0, axis), step.transpose(0, axis)
        parts = _Parts(name)
        found = parts.add(
            "Cast",
            parts.constant("codes", codes.to(torch.int8).contiguous().numpy()),
            to=TensorProto.FLOAT,
        )
        parts.add("Mul", found, parts.constant("steps", step.contiguous().numpy()), output=name)
        _put(model, name, parts)
    return _written(model)


def unpack(file: File) -> bytes:
    """The same network with dense weights again, which is what it computes with.

    Raises:
        ValueError: no ONNX model.
    """
    model = parsed(file)
    return _written(model) if unpacked(model) else read(file)


def unpacked(model: onnx.ModelProto) -> bool:
    """Unpack the weights of a model in place, and say whether any were packed."""
    graph = model.graph
    steps = [node for node in graph.node if node.name.startswith(UNPACKS)]
    if not steps:
        return False
    wanted = [name for node in steps for name in node.output if not name.startswith(UNPACKS)]
    used = {name for node in steps for name in node.input}
    part = helper.make_graph(
        steps,
        "unpack",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted],
        [one for one in graph.initializer if one.name in used],
    )
    small = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnx_runtime.simulation(small.SerializeToString())
    arrays = dict(zip(wanted, session.run(None, {}), strict=True))
    for node in steps:
        graph.node.remove(node)
    read_on = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name not in used or one.name in read_on]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in arrays.items())
    return True


def _weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Weights of layers in floating point that are large enough, by name."""
    same = {one.output[0]: one.input[0] for one in model.graph.node if one.op_type == "Identity"}
    read_as = [node.input[1] for node in model.graph.node if node.op_type in READERS]
    names = {same.get(name, name) for name in read_as}
    return {
        one.name: numpy_helper.to_array(one)
        for one in model.graph.initializer
        if one.name in names
        and one.data_type == TensorProto.FLOAT
        and len(one.dims) > 1
        and math.prod(one.dims) >= FEWEST
    }


def _enough(weights: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    if not weights:
        raise ValueError(
            f"the file must have weights of at least {FEWEST} numbers in floating point; got none"
        )
    return weights


def _channels(model: onnx.ModelProto, name: str) -> int | None:
    """The dimension of a weight that its output channels are, if all readers agree."""
    same = {one.output[0]: one.input[0] for one in model.graph.node if one.op_type == "Identity"}
    found = set[int | None]()
    for node in model.graph.node:
        if node.op_type in READERS and same.get(node.input[1], node.input[1]) == name:
            turned = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            if node.op_type == "Conv":
                found.add(0)
            elif node.op_type == "Gemm":
                found.add(0 if turned.get("transB") else 1)
            else:
                found.add(None)
    return found.pop() if len(found) == 1 else None


def _smallest(weight: np.ndarray) -> tuple[str, int]:
    """The form that takes fewest bits, and the bits of an index."""
    n, there = weight.size, int(np.count_nonzero(weight))
    sizes = {("dense", 32): 32.0 * n, ("bitmap", 1): n + 32.0 * there}
    values = len(np.unique(weight.reshape(-1)[:4096]))  # of most weights too many already
    values = len(np.unique(weight)) if values <= 256 else values
    bits = next((b for b in (1, 2, 4, 8) if values <= 2**b), None)
    if bits is not None:
        sizes["book", bits] = bits * n + 32.0 * values
    overhead = 8 * 600  # of the operations that unpack
    return min(sizes, key=lambda form: sizes[form] + overhead * (form[0] != "dense"))


class _Parts:
    """Constants, and operations that make a weight of them, in the making."""

    def __init__(self, weight: str) -> None:
        self.prefix = f"{UNPACKS}{weight}/"
        self.tensors: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, key: str, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(array, f"{self.prefix}{key}"))
        return f"{self.prefix}{key}"

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = f"{self.prefix}{kind}{len(self.nodes)}"
        made = helper.make_node(kind, list(inputs), [output or name], name, **attributes)
        self.nodes.append(made)
        return made.output[0]


def _packed(name: str, weight: np.ndarray, form: str, bits: int) -> _Parts:
    """A weight as indices into a book. That of a bitmap is 0 and all numbers that are not 0, and an
    index is how many of these there were so far.
    """
    parts, flat = _Parts(name), weight.reshape(-1)
    if form == "book":
        book, codes = np.unique(flat, return_inverse=True)
    else:
        book, codes = np.append(np.float32(0), flat[flat != 0]), flat != 0
    found = parts.add("Cast", parts.constant("bytes", _bytes(codes, bits)), to=TensorProto.INT32)
    if bits < 8:
        places = 2 ** (bits * np.arange(8 // bits))
        found = parts.add("Div", found, parts.constant("places", places.astype(np.int32)))
        found = parts.add("Mod", found, parts.constant("range", np.array(2**bits, np.int32)))
    found = parts.add("Reshape", found, parts.constant("row", np.array([-1], np.int64)))
    ends = [parts.constant(key, np.array([at])) for key, at in (("first", 0), ("end", flat.size))]
    found = parts.add("Slice", found, *ends)
    if form == "bitmap":
        axis = parts.constant("axis", np.array(0, np.int64))
        found = parts.add("Mul", found, parts.add("CumSum", found, axis))
    found = parts.add("Gather", parts.constant("book", book), found)
    shape = parts.constant("shape", np.array(weight.shape, np.int64))
    parts.add("Reshape", found, shape, output=name)
    return parts


def _bytes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of so many bits, the first in the lowest of a byte: uint8 (bytes, 1)."""
    each = 8 // bits
    rows = np.zeros((-(-len(codes) // each), each), np.uint8)
    rows.reshape(-1)[: len(codes)] = codes
    return (rows << (bits * np.arange(each, dtype=np.uint8))).sum(1, dtype=np.uint8)[:, None]


def _put(model: onnx.ModelProto, name: str, parts: _Parts) -> None:
    """Let operations at the beginning make a weight, in the place of a constant."""
    graph = model.graph
    (old,) = (one for one in graph.initializer if one.name == name)
    graph.initializer.remove(old)
    graph.initializer.extend(parts.tensors)
    for node in reversed(parts.nodes):
        graph.node.insert(0, node)


def _written(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model)
    return model.SerializeToString()
