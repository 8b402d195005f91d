"""Our grids against ONNX Runtime's integer arithmetic, where the two should agree."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from smallnets.quantize.uniform import affine_grid, fake_quantize, nearest_codes, symmetric_grid


def run(nodes: list[Any], inputs: dict[str, Any], output: str, kind: int, **constants: Any) -> Any:
    """Evaluate a graph of ONNX nodes on arrays."""
    graph = helper.make_graph(
        nodes,
        "arithmetic",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info(output, kind, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([output], inputs)[0]


@pytest.fixture
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 1.7 * torch.randn(6, 40, generator=generator) + 0.4


@pytest.mark.parametrize("per_channel", [False, True])
def test_affine_codes_are_those_of_quantize_linear(x: torch.Tensor, per_channel: bool) -> None:
    step, zero = affine_grid(x, 8, per_channel)
    axis = {"axis": 0} if per_channel else {}
    codes = run(
        [helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["codes"], **axis)],
        {"x": x.numpy()},
        "codes",
        TensorProto.UINT8,
        step=step.flatten().numpy() if per_channel else step.numpy(),
        zero=(zero.flatten() if per_channel else zero).numpy().astype(np.uint8),
    )
    np.testing.assert_array_equal(codes, nearest_codes(x, step, 0, 255, zero))


def test_values_beyond_the_range_clip_alike(x: torch.Tensor) -> None:
    step = symmetric_grid(x, 8) / 3
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["values"]),
    ]
    values = run(
        nodes,
        {"x": x.numpy()},
        "values",
        TensorProto.FLOAT,
        step=step.numpy(),
        zero=np.array(0, dtype=np.int8),
    )
    ours = fake_quantize(x, step, -128, 127)
    assert bool((x.abs() > 128 * step).any())
    np.testing.assert_array_equal(values, ours.numpy())


def test_an_integer_product_equals_the_fake_quantised_one(x: torch.Tensor) -> None:
    """What is trained in floating point is what integer hardware computes."""
    w = torch.randn(8, 40, generator=torch.Generator().manual_seed(1))
    step, zero = affine_grid(x, 8)
    weight_step = symmetric_grid(w, 8)
    whole = run(
        [helper.make_node("MatMulInteger", ["a", "b", "zero"], ["product"])],
        {
            "a": nearest_codes(x, step, 0, 255, zero).numpy().astype(np.uint8),
            "b": nearest_codes(w, weight_step, -127, 127).T.contiguous().numpy().astype(np.int8),
        },
        "product",
        TensorProto.INT32,
        zero=zero.numpy().astype(np.uint8),
    )
    simulated = fake_quantize(x.double(), step.double(), 0, 255, zero.double())
    simulated = simulated @ fake_quantize(w.double(), weight_step.double(), -127, 127).T
    scale = float(step.double() * weight_step.double())
    np.testing.assert_allclose(whole * scale, simulated, rtol=1e-9, atol=1e-9)
