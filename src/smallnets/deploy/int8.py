"""Quantised networks in ONNX Runtime, in integer arithmetic.

A network that `smallnets.quantize.genie` has quantised becomes an ONNX model in which weights are
8-bit integers and every quantised tensor passes a pair of QuantizeLinear and DequantizeLinear. ONNX
Runtime melts such pairs with the layer between them into integer kernels. Widths below 8 bits are
stored in 8: their grids are exact, but nothing gets smaller or faster than 8 bits are.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from smallnets.batches import Batches, Source
from smallnets.deploy import onnx_runtime
from smallnets.measure import Latency, agreement
from smallnets.quantize.genie.network import BitPolicy, QuantizedNetwork, taken
from smallnets.quantize.genie.quantizers import ActivationQuantizer, QuantizedLayer
from smallnets.surgery import replace_module

POLICY = BitPolicy(first=8, second_input=8, last=8, images=8, additions=8)
"""Widths with which nearly all of a network runs in integers: images and additions, too."""


class _Rounded(nn.Module):
    """A tensor's grid as ONNX knows it: clipped to its own codes, then on 8 bits."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        low, high = quantizer.limits
        self.least, self.most = (-128, 127) if quantizer.signed else (0, 255)
        self.step = float(quantizer.step.detach().abs())
        self.narrow = quantizer.bits < 8
        self.low, self.high = low * self.step, high * self.step

    def forward(self, x: Tensor) -> Tensor:
        if self.narrow:
            x = x.clamp(self.low, self.high)
        return torch.fake_quantize_per_tensor_affine(x, self.step, 0, self.least, self.most)


class _Integer(nn.Module):
    """A layer whose weights pass a grid of 8 bits and one step a channel."""

    def __init__(self, quantized: QuantizedLayer) -> None:
        super().__init__()
        self.layer = copy.deepcopy(quantized.layer)
        weights = quantized.weights
        self.layer.weight.data = weights().detach().clone()
        self.register_buffer("step", weights.step.detach().flatten().clone())
        self.register_buffer("zero", torch.zeros(len(self.step), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.fake_quantize_per_channel_affine(
            self.layer.weight, self.step, self.zero, 0, -128, 127
        )
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(x, weight, self.layer.bias)
        return self.layer._conv_forward(x, weight, self.layer.bias)


def export_int8(network: QuantizedNetwork, input_shape: tuple[int, ...]) -> bytes:
    """A quantised network as an ONNX model with 8-bit weights, for batches of any size.

    Open it with `onnx_runtime.load`, which compares it with its simulation where it runs: without
    VNNI instructions ONNX Runtime's fastest kernels cut sums off.

    Args:
        network: finished, with symmetric weights of at most 8 bits. Fold BatchNorm and use `POLICY`
            for integer arithmetic from end to end.
        input_shape: one example's shape, such as (3, 32, 32).

    Raises:
        ValueError: more than 8 bits somewhere, zero points that differ between channels (integer
            kernels have one a tensor), steps not found yet, or as `onnx_runtime.export`.
    """
    for name, weights in network.weights.items():
        if weights.bits > 8:
            raise ValueError(f"weights must have at most 8 bits; {name} has {weights.bits}")
        if bool((weights.zero != 2 ** (weights.bits - 1)).any()):
            raise ValueError(
                "weights must be quantised with symmetric=True, so that all channels have the "
                f"middle code for 0; {name} has others"
            )
    most = max((quantizer.bits for quantizer in network.activations), default=0)
    if not 0 < most <= 8:
        raise ValueError(f"activations must be quantised to at most 8 bits; got {most or 'none'}")
    for quantizer in network.activations:
        if not quantizer.ready:
            raise ValueError("calibrate or reconstruct the network before exporting it")
    root = copy.deepcopy(network.root)
    for name, module in list(root.named_modules()):
        if isinstance(module, QuantizedLayer):
            replace_module(root, name, _Integer(module))
        elif isinstance(module, ActivationQuantizer):
            replace_module(root, name, _Rounded(module))
    with torch.no_grad():
        exported = onnx_runtime.export(network.rebuilt(root).eval(), input_shape)
    return _with_integer_weights(exported)


def _with_integer_weights(exported: bytes) -> bytes:
    """Weights and biases as integers in the file, not as numbers that are rounded at run time."""
    model = onnx.load_from_string(exported)
    graph = model.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]  # equal tensors are stored once
    made_by = {name: node for node in graph.node for name in node.output}
    gone = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            values, step = (constants[name] for name in node.input[:2])
            shape = (-1, *[1] * (values.ndim - 1))
            codes = np.rint(values / step.reshape(shape)).clip(-128, 127).astype(np.int8)
            # A zero point of its own: ONNX Runtime stumbles over one that layers share where it
            # turns signed weights into unsigned ones (`onnx_runtime.EXACT_SUMS`).
            zero = f"{node.output[0]}_zero"
            graph.initializer.append(numpy_helper.from_array(codes, node.output[0]))
            graph.initializer.append(numpy_helper.from_array(np.zeros(step.shape, np.int8), zero))
            for reader in graph.node:
                if reader.op_type == "DequantizeLinear" and reader.input[0] == node.output[0]:
                    reader.input[2] = zero
            gone.append(node)
    for node in gone:
        graph.node.remove(node)
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
            sources = [made_by.get(name) for name in node.input[:2]]
            if all(one is not None and one.op_type == "DequantizeLinear" for one in sources):
                steps = [constants[one.input[1]] for one in sources]  # type: ignore[union-attr]
                _integer_bias(graph, place, node, constants[node.input[2]], steps[0] * steps[1])
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _integer_bias(
    graph: onnx.GraphProto, place: int, node: onnx.NodeProto, bias: np.ndarray, step: np.ndarray
) -> None:
    """Give a layer a bias of 32-bit integers in units of its sums; one that does not fit, as that
    of a channel with next to no weights, stays in float and so does its layer.
    """
    step = np.broadcast_to(step, bias.shape).astype(np.float32)
    name = f"{node.output[0]}_bias"
    codes = np.rint(bias.astype(np.float64) / step)
    if np.abs(codes).max() >= 2**31:
        return
    codes = codes.astype(np.int32)
    zero = np.zeros(bias.shape, np.int32)
    for suffix, array in (("codes", codes), ("step", step), ("zero", zero)):
        graph.initializer.append(numpy_helper.from_array(array, f"{name}_{suffix}"))
    inputs = [f"{name}_{suffix}" for suffix in ("codes", "step", "zero")]
    node.input[2] = name
    graph.node.insert(place, helper.make_node("DequantizeLinear", inputs, [name], axis=0))


@dataclass(frozen=True)
class Deployed:
    """A quantised network beside its original in ONNX Runtime.

    Attributes:
        latency: "float" and "int8", timed in turns.
        file_bytes: of the two exported models.
        agreement: share of images to which runtime and simulation give the same class.
        difference: the largest difference of their logits over the largest logit.
    """

    latency: Mapping[str, Latency]
    file_bytes: Mapping[str, int]
    agreement: float
    difference: float

    @property
    def summary(self) -> dict[str, float]:
        """As numbers by name: median seconds and bytes of both, agreement, difference."""
        return {
            **{name: one.median for name, one in self.latency.items()},
            **{f"{name} file": float(size) for name, size in self.file_bytes.items()},
            "agreement": self.agreement,
            "difference": self.difference,
        }


def deploy(
    original: nn.Module,
    network: QuantizedNetwork,
    images: Tensor | Batches | Source,
    *,
    batch: int = 1,
    rounds: int = 50,
) -> Deployed:
    """Export both networks, compare the quantised one with its simulation, and time both.

    Args:
        original: in floating point.
        network: quantised, as `export_int8` takes it.
        images: (n, channels, height, width) on which runtime and simulation are compared; or
            batches of your own, with or without labels, of which the first is taken.
        batch, rounds: of the timing.

    Raises:
        ValueError: as `export_int8` and `onnx_runtime.load`, or logits are not finite.
    """
    images = taken(network, images)
    shape = tuple(images.shape[1:])
    files = {
        "float": onnx_runtime.export(original, shape),
        "int8": export_int8(network, shape),
    }
    sessions: dict[str, onnxruntime.InferenceSession] = {
        name: onnx_runtime.load(file) for name, file in files.items()
    }
    with torch.no_grad():
        simulated = network(images).cpu()
    run = onnx_runtime.predict(sessions["int8"], images)
    return Deployed(
        onnx_runtime.latencies(sessions, shape, batch=batch, rounds=rounds),
        {name: len(file) for name, file in files.items()},
        agreement(run, simulated),
        onnx_runtime.largest_difference(run, simulated),
    )
