"""Export to ONNX, inference in ONNX Runtime on the CPU, and how long it takes."""

import io
import warnings
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from smallnets import measure
from smallnets.checks import whole
from smallnets.measure import Latency, evaluating
from smallnets.measure.evaluation import example_input

OPSET = 17


def export(model: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """The network in evaluation mode as an ONNX model with batches of any size.

    Args:
        model: takes a batch `(n, *input_shape)` of floats and returns one tensor.
        input_shape: one example's shape, such as (3, 32, 32).
    """
    buffer = io.BytesIO()
    with evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's advice is not the reader's concern
        torch.onnx.export(
            model,
            (example_input(model, input_shape),),
            buffer,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


EXACT_SUMS = ("session.x64quantprecision", "1")  # slower kernels of unsigned weights


@cache
def cuts_sums_off() -> bool:
    """Whether the fastest 8-bit kernels give wrong sums on this processor, tried with the largest
    numbers.

    Without VNNI instructions, products of unsigned and signed 8-bit numbers are summed in pairs in
    16 bits and cut off there.
    """
    largest = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weights"], ["sums"])],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [1, 16])],
        [largest],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (sums,) = session.run(None, {"x": np.full((1, 64), 255, np.uint8)})
    return bool((sums != 64 * 255 * 127).any())


def load(exported: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session that runs an exported network on the CPU with so many threads, integers exactly."""
    options = onnxruntime.SessionOptions()
    if cuts_sums_off():
        options.add_session_config_entry(*EXACT_SUMS)
    options.intra_op_num_threads = whole("threads", threads, 1)
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])


def predict(session: onnxruntime.InferenceSession, x: Tensor) -> Tensor:
    """Logits (n, classes) of a batch (n, ...) as the network takes it."""
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.cpu().numpy()})
    return torch.from_numpy(logits)


def difference(model: nn.Module, session: onnxruntime.InferenceSession, x: Tensor) -> float:
    """The largest difference between torch's logits and the session's, over torch's largest."""
    with evaluating(model), torch.no_grad():
        logits = model(x)
    return float((predict(session, x) - logits).abs().max() / logits.abs().max())


def latencies(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    input_shape: tuple[int, ...],
    *,
    batch: int = 1,
    warm_up: int = 5,
    rounds: int = 50,
) -> dict[str, Latency]:
    """Seconds a pass of several networks, timed in turns, so that a busy machine slows all alike.

    Args:
        sessions: name -> session, all with one number of threads.
        input_shape: one example's shape.
        batch: examples a pass.
        warm_up: untimed passes.
        rounds: timed passes of each.

    Raises:
        ValueError: a number below 1, or no session.
    """
    whole("batch", batch, 1)
    example = np.zeros((batch, *input_shape), dtype=np.float32)

    def call(session: onnxruntime.InferenceSession) -> Callable[[], object]:
        feed = {session.get_inputs()[0].name: example}
        return lambda: session.run(None, feed)

    calls = {name: call(session) for name, session in sessions.items()}
    timed = measure.interleaved(calls, rounds=rounds, warm_up=warm_up)
    threads = max(s.get_session_options().intra_op_num_threads for s in sessions.values())
    return {
        name: Latency(median / 1000, low / 1000, high / 1000, rounds, threads, warm_up, batch)
        for name, (low, median, high) in timed.items()
    }
