"""A network in whole numbers as an ONNX file of integer operations.

Each layer becomes QLinearConv: 8-bit codes, 32-bit sums, the multiplier in floating point. Where
sums are averaged before they are rounded, ConvInteger and a step in floating point.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from smallnets.checks import whole
from smallnets.deploy.onnx_runtime import OPSET
from smallnets.quantize.integer import IntegerLayer, IntegerNetwork
from smallnets.quantize.modules.base import Grid


def export_whole_numbers(network: IntegerNetwork, input_shape: tuple[int, ...]) -> bytes:
    """The network for ONNX Runtime, with batches of any size.

    Args:
        network: made by `to_integer`, with codes of weights from -128 to 127 less their zero points
            (symmetric grids have them) and outputs of at most 8 bits.
        input_shape: one example's shape, such as (3, 32, 32).

    Raises:
        ValueError: other codes.
    """
    for side in input_shape:
        whole("every side of input_shape", side, 1)
    graph = _Graph()
    name = graph.quantize("images", network.layers[0].given)
    for layer in network.layers:
        if int(layer.weight.min()) < -128 or int(layer.weight.max()) > 127:
            raise ValueError(
                f"weights of layer {layer.name!r} must be from -128 to 127 less their zero point; "
                f"got {int(layer.weight.min())} to {int(layer.weight.max())}: use a symmetric grid"
            )
        if layer.taken.high - layer.taken.low > 255:
            raise ValueError("outputs must have at most 8 bits to be exported")
        averaged = any(step.kind == "average" for step in layer.after)
        name = graph.averaged(name, layer) if averaged else graph.codes(name, layer)
    last = network.layers[-1].taken
    scale, zero = graph.constants(last)
    graph.add("DequantizeLinear", [name, scale, zero], output="logits")
    shape: list[str | int | None] = ["batch", *input_shape]
    end = network.layers[-1]
    rows = end.geometry is None or any(step.kind == "flatten" for step in end.after)
    answers: list[str | int | None] = ["batch", None] if rows else ["batch", None, None, None]
    made = helper.make_graph(
        graph.nodes,
        "whole_numbers",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, answers)],
        graph.initializers,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class _Graph:
    """Nodes and constants in the making. All codes are unsigned: a grid's, less its lowest."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        made = helper.make_node(kind, inputs, [output], name=output, **attributes)
        self.nodes.append(made)
        return output

    def constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def constants(self, grid: Grid) -> tuple[str, str]:
        """Scale and zero point of a grid."""
        return (
            self.constant(np.array(float(grid.scale), np.float32)),
            self.constant(np.array(int(grid.zero) - grid.low, np.uint8)),
        )

    def limited(self, name: str, grid: Grid, positive: bool, most: float | None = None) -> str:
        """Codes within the grid, those of negative values (or above `most`) cut off if asked."""
        zero, high = int(grid.zero) - grid.low, grid.high - grid.low
        low = min(max(zero, 0), high) if positive else 0
        if most is not None:
            high = min(high, zero + round(most / float(grid.scale)))
        if low == 0 and high == 255:
            return name
        ends = [self.constant(np.array(one, np.uint8)) for one in (low, high)]
        return self.add("Clip", [name, *ends])

    def quantize(self, name: str, grid: Grid) -> str:
        return self.limited(self.add("QuantizeLinear", [name, *self.constants(grid)]), grid, False)

    def kernel(self, layer: IntegerLayer) -> tuple[str, dict[str, Any]]:
        """The weight as that of a convolution, and its geometry."""
        weight = layer.weight.numpy().astype(np.int8)
        if layer.geometry is None:
            return self.constant(weight[:, :, None, None]), {}
        padding, dilation = layer.geometry["padding"], layer.geometry["dilation"]
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            before = [0, 0] if padding == "valid" else [one // 2 for one in reach]
            after = [0, 0] if padding == "valid" else [one - one // 2 for one in reach]
        else:
            before = after = list(padding)
        return self.constant(weight), {
            "strides": list(layer.geometry["stride"]),
            "pads": [*before, *after],
            "dilations": list(dilation),
            "group": layer.geometry["groups"],
        }

    def as_map(self, name: str, layer: IntegerLayer) -> str:
        if layer.geometry is not None:
            return name
        return self.add("Unsqueeze", [name, self.constant(np.array([2, 3], np.int64))])

    def as_rows(self, name: str, layer: IntegerLayer) -> str:
        return name if layer.geometry is not None else self.add("Flatten", [name], axis=1)

    def codes(self, name: str, layer: IntegerLayer) -> str:
        """Codes to codes in one integer operation, and pooling on codes."""
        weight, geometry = self.kernel(layer)
        unit = layer.unit / layer.given.scale.double()
        zeros = np.zeros(len(unit), np.int8)
        inputs = [
            self.as_map(name, layer), *self.constants(layer.given), weight,
            self.constant(unit.numpy().astype(np.float32)), self.constant(zeros),
            *self.constants(layer.taken), self.constant(layer.bias.numpy()),
        ]  # fmt: skip
        found = self.as_rows(self.add("QLinearConv", inputs, **geometry), layer)
        kinds = [step.kind for step in layer.after]
        positive = "relu" in kinds or "relu6" in kinds
        found = self.limited(found, layer.taken, positive, 6 if "relu6" in kinds else None)
        for step in layer.after:
            if step.kind == "max":
                found = self.add("MaxPool", [found], **_pool(step.options))
            elif step.kind == "flatten":
                found = self.add("Flatten", [found], axis=1)
        return found

    def averaged(self, name: str, layer: IntegerLayer) -> str:
        """Codes to sums in integers, sums to codes by way of floating point."""
        weight, geometry = self.kernel(layer)
        zero = self.constants(layer.given)[1]
        found = self.add("ConvInteger", [self.as_map(name, layer), weight, zero], **geometry)
        column = (1, -1, 1, 1)
        bias = self.constant(layer.bias.numpy().reshape(column))
        unit = self.constant(layer.unit.numpy().astype(np.float32).reshape(column))
        found = self.add("Add", [found, bias])
        found = self.add("Cast", [found], to=TensorProto.FLOAT)
        found = self.as_rows(self.add("Mul", [found, unit]), layer)
        for step in layer.after:
            if step.kind == "flatten":
                found = self.add("Flatten", [found], axis=1)
            elif step.kind == "max":
                found = self.add("MaxPool", [found], **_pool(step.options))
            elif step.kind == "average" and step.options:
                found = self.add("AveragePool", [found], **_pool(step.options))
            elif step.kind == "average":
                found = self.add("GlobalAveragePool", [found])
            else:
                found = self.add("Relu", [found])
                if step.kind == "relu6":
                    ends = [self.constant(np.array(one, np.float32)) for one in (0, 6)]
                    found = self.add("Clip", [found, *ends])
        return self.quantize(found, layer.taken)


def _pool(options: dict[str, Any]) -> dict[str, Any]:
    """torch's options of a pooling as ONNX names them."""

    def pair(value: Any) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    found: dict[str, Any] = {
        "kernel_shape": pair(options["kernel_size"]),
        "strides": pair(options["stride"]),
    }
    if "padding" in options:
        found["pads"] = pair(options["padding"]) * 2
        found["dilations"] = pair(options["dilation"])
        found["ceil_mode"] = int(options["ceil_mode"])
    return found
