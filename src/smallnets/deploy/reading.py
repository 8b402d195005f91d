"""Exported files read back and measured afresh, in the same table as networks in torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, shape_inference
from torch import nn
from tqdm import tqdm

from smallnets import measure
from smallnets.checks import each, whole
from smallnets.deploy import onnx_runtime
from smallnets.deploy.cost import sizes_of
from smallnets.deploy.files import File, input_of, parsed, read
from smallnets.deploy.packed import unpacked
from smallnets.measure import Latency, evaluating
from smallnets.measure.layers import LayerSize, model_input
from smallnets.quantize.modules import widths
from smallnets.storage import one_line
from smallnets.training import workers

PASSED_ON = ("Identity", "DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Cast",
             "Unsqueeze", "Squeeze", "Flatten")  # fmt: skip
NUMBERS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8,
           TensorProto.UINT8, TensorProto.INT32)  # fmt: skip
EIGHT = (TensorProto.INT8, TensorProto.UINT8)
WEIGHTS_AT = {"QLinearConv": (3, 8), "QLinearMatMul": (3,), "ConvInteger": (1,),
              "MatMulInteger": (1,)}  # fmt: skip
"""Where integer operations have their weights and biases; all other inputs of theirs are grids."""


@dataclass(frozen=True)
class FileLayer(LayerSize):
    """One operation of a file, see `LayerSize`.

    Attributes:
        weight_bits, input_bits: in which it computes: 8 or 32.
    """

    weight_bits: int
    input_bits: int


def file_layers(file: File) -> list[FileLayer]:
    """Size the operations of a file that multiply or hold weights, for one example, in order.

    Convolutions, transposed convolutions and matrix products of float and integer kinds count as in
    `measure.macs`. Parameters are numbers of weights and biases that it computes with: BatchNorm
    has been folded, equal tensors are stored once, and packed weights (`smallnets.deploy.packed`)
    are unpacked.

    Raises:
        ValueError: no ONNX model, or sizes of tensors that cannot be told.
    """
    model = parsed(file)
    input_of(model)
    unpacked(model)
    graph = model.graph
    for one in graph.input:
        one.type.tensor_type.shape.dim[0].dim_value = 1
    for one in graph.output:
        one.type.tensor_type.ClearField("shape")  # it names the batch, and nothing else that is new
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.value_info, *graph.output)
        if one.type.tensor_type.HasField("shape")
    }
    shapes = {name: sides for name, sides in shapes.items() if 0 not in sides}
    made = [name for node in graph.node for name in node.output if name]
    shapes |= _tried(model, [name for name in dict.fromkeys(made) if name not in shapes])
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    shapes |= {name: list(one.dims) for name, one in constants.items()}
    made_by = {name: node for node in graph.node for name in node.output}

    def source(name: str) -> str:
        """The constant, or else the tensor, behind operations that only pass it on."""
        while name in made_by and made_by[name].op_type in PASSED_ON and name not in constants:
            name = made_by[name].input[0]
        return name

    found, counted = [], set[str]()
    for node in graph.node:
        if node.op_type in PASSED_ON or node.op_type == "Constant":
            continue
        own = _weights(node, constants, source)
        new = [name for name in own if name not in counted]
        counted.update(new)
        parameters = sum(math.prod(constants[name].dims) for name in new)
        macs = _macs(node, shapes)
        if not macs and not parameters:
            continue
        inputs = [name for name in node.input if name and source(name) not in constants]
        kinds = [constants[name].data_type for name in own]
        first = made_by.get(node.input[0]) if node.input else None
        narrow = node.op_type in WEIGHTS_AT or (
            first is not None and first.op_type == "DequantizeLinear"
        )
        found.append(
            FileLayer(
                node.name or node.output[0],
                node.op_type,
                macs,
                parameters,
                sum(_numel(shapes, name) for name in inputs),
                sum(_numel(shapes, name) for name in node.output if name),
                8 if any(kind in EIGHT for kind in kinds) else 32,
                8 if narrow else 32,
            )
        )
    return found


def _tried(model: onnx.ModelProto, names: list[str]) -> dict[str, list[int]]:
    """The shapes that tensors have when the file answers one example: some, as those of a channel
    shuffle, are computed by the file itself and cannot be inferred. None where it does not answer.
    """
    if not names:
        return {}
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    given, shape = input_of(model)
    kind = helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    try:
        session = onnx_runtime.simulation(asked.SerializeToString())
        values = session.run(names, {given.name: np.zeros((1, *shape), kind)})
    except Exception:  # ONNX Runtime's own have no common ancestor
        return {}
    found = zip(names, values, strict=True)
    return {name: list(value.shape) for name, value in found if isinstance(value, np.ndarray)}


def _weights(
    node: onnx.NodeProto, constants: Mapping[str, Any], source: Callable[[str], str]
) -> list[str]:
    """Constants of one or more dimensions that a node reads as weights."""
    places = WEIGHTS_AT.get(node.op_type, range(len(node.input)))
    names = [source(node.input[i]) for i in places if i < len(node.input) and node.input[i]]
    return [
        name
        for name in dict.fromkeys(names)
        if name in constants and constants[name].dims and constants[name].data_type in NUMBERS
    ]


def _numel(shapes: Mapping[str, list[int]], name: str) -> int:
    return math.prod(shapes[name]) if name in shapes else 0


def _macs(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    places = {
        "Conv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3), "ConvTranspose": (0, 1),
        "Gemm": (0, 1), "MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3),
    }.get(node.op_type)  # fmt: skip
    if places is None:
        return 0
    a, b = (node.input[place] for place in places)
    if any(name not in shapes for name in (a, b, node.output[0])):
        raise ValueError(
            f"the sizes of {node.op_type} {node.name or node.output[0]!r} cannot be told from the "
            "file"
        )
    output = math.prod(shapes[node.output[0]])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[a]) * math.prod(shapes[b][1:])
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
        return output * math.prod(shapes[b][1:])
    if node.op_type == "Gemm":
        turned = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        return output * shapes[a][0 if turned.get("transA") else 1]
    return output * shapes[a][-1]


@dataclass(frozen=True)
class Measured:
    """What a network costs.

    Attributes:
        name: of the network.
        runtime: "torch" or "onnxruntime".
        parameters: numbers of weights and biases; of a file, see `file_layers`.
        macs: multiply-adds of one example.
        bit_operations: multiply-adds times bits of weights times bits of inputs.
        bytes: of the file; of a network in torch of its parameters and buffers.
        latency: (batch, threads) -> seconds a pass.
    """

    name: str
    runtime: str
    parameters: int
    macs: int
    bit_operations: int
    bytes: int
    latency: Mapping[tuple[int, int], Latency]

    @property
    def row(self) -> dict[str, float | int | str]:
        """A line of a table: all of it by name, times as medians in milliseconds."""
        return {
            "network": self.name,
            "runtime": self.runtime,
            "parameters": self.parameters,
            "macs": self.macs,
            "bit operations": self.bit_operations,
            "bytes": self.bytes,
            **{
                f"ms, batch {batch}, {threads} thread{'s' * (threads > 1)}": 1000 * one.median
                for (batch, threads), one in self.latency.items()
            },
        }


def measure_onnx(
    file: File,
    name: str | None = None,
    *,
    batches: Sequence[int] = (1, 32),
    threads: Sequence[int] = (1, 2),
    warm_up: int = 5,
    rounds: int = 30,
) -> Measured:
    """Read an exported file back and measure it.

    Args and Raises: as `measure_side_by_side`.
    """
    if name is None:
        name = Path(file).stem if isinstance(file, str | Path) else "network"
    found = measure_side_by_side(
        {name: file}, batches=batches, threads=threads, warm_up=warm_up, rounds=rounds
    )
    return found[name]


def measure_side_by_side(
    networks: Mapping[str, File | nn.Module],
    input_shape: tuple[int, ...] | None = None,
    *,
    batches: Sequence[int] = (1, 32),
    threads: Sequence[int] = (1, 2),
    warm_up: int = 5,
    rounds: int = 30,
) -> dict[str, Measured]:
    """Measure files and networks in one run, all timed in turns for each batch and thread number.

    Args:
        networks: name -> exported file (path, bytes, `Exported`) or `nn.Module`.
        input_shape: one example's shape; files say it themselves.
        batches: examples a pass; none leaves time out.
        threads: of torch and of ONNX Runtime.
        warm_up, rounds: untimed and timed passes of each.

    Raises:
        ValueError: nothing to measure, a network without `input_shape`, a file that is none, that
            takes another shape, or that does not take a batch of that size; numbers below 1.
    """
    if not networks:
        raise ValueError("networks must name at least one network or file; got none")
    whole("warm_up", warm_up, 1)
    whole("rounds", rounds, 1)
    batches, threads = list(batches), list(threads)
    if batches:
        each("batches", batches, whole, 1)
        each("threads", threads, whole, 1)
    files = {name: read(one) for name, one in networks.items() if not isinstance(one, nn.Module)}
    modules = {name: one for name, one in networks.items() if isinstance(one, nn.Module)}
    shape = input_shape
    for name, file in files.items():
        own = input_of(parsed(file))[1]
        if shape is not None and own != tuple(shape):
            raise ValueError(f"all networks must take one shape; {name} takes {own}, not {shape}")
        shape = own
    if shape is None:
        raise ValueError("input_shape must be given for networks in torch; got None")
    sizes = {name: sizes_of_file(file) for name, file in files.items()}
    sizes |= {name: _sizes_of_module(module, shape) for name, module in modules.items()}
    times: dict[str, dict[tuple[int, int], Latency]] = {name: {} for name in networks}
    settings = [(batch, count) for count in threads for batch in batches]
    for batch, count in tqdm(settings, desc="timing", leave=False, delay=2):
        for name, one in _timed(files, modules, shape, batch, count, warm_up, rounds).items():
            times[name][batch, count] = one
    return {
        name: Measured(name, "onnxruntime" if name in files else "torch", *sizes[name], times[name])
        for name in networks
    }


def sizes_of_file(file: File) -> tuple[int, int, int, int]:
    """Parameters, multiply-adds of one example, bit operations, and bytes of the file itself."""
    layers = file_layers(file)
    return (
        sum(one.parameters for one in layers),
        sum(one.macs for one in layers),
        sum(one.macs * one.weight_bits * one.input_bits for one in layers),
        len(read(file)),
    )


def _sizes_of_module(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    layers, known = sizes_of(module, shape), widths(module)
    stored = {id(one): one for one in (*module.parameters(), *module.buffers())}.values()
    return (
        sum(one.parameters for one in layers),
        sum(one.macs for one in layers),
        sum(one.macs * math.prod(known.get(one.name, (32, 32))) for one in layers),
        sum(one.numel() * one.element_size() for one in stored),
    )


def _timed(
    files: Mapping[str, bytes],
    modules: Mapping[str, nn.Module],
    shape: tuple[int, ...],
    batch: int,
    threads: int,
    warm_up: int,
    rounds: int,
) -> dict[str, Latency]:
    example = np.zeros((batch, *shape), dtype=np.float32)
    calls: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        for name, file in files.items():
            calls[name] = _session_call(name, onnx_runtime.load(file, threads), example)
        for name, module in modules.items():
            stack.enter_context(evaluating(module))
            inputs = model_input(module, shape).expand(batch, *shape).contiguous()
            calls[name] = _module_call(module, inputs)
        stack.enter_context(workers.threads(threads))
        stack.enter_context(torch.inference_mode())
        found = measure.interleaved(calls, rounds=rounds, warm_up=warm_up)
    return {
        name: Latency(median / 1000, low / 1000, high / 1000, rounds, threads, warm_up, batch)
        for name, (low, median, high) in found.items()
    }


def _module_call(module: nn.Module, inputs: torch.Tensor) -> Callable[[], object]:
    return lambda: module(inputs)


def _session_call(
    name: str, session: onnxruntime.InferenceSession, example: np.ndarray
) -> Callable[[], object]:
    feed = {session.get_inputs()[0].name: example}
    try:
        session.run(None, feed)
    except Exception as error:  # ONNX Runtime's own have no common ancestor
        raise ValueError(
            f"{name} must take a batch of {len(example)}; it fails with {one_line(error)[:300]}"
        ) from None
    return lambda: session.run(None, feed)
