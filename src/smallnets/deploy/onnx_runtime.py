"""Export to ONNX, inference in ONNX Runtime on the CPU, and how long it takes."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from smallnets import measure
from smallnets.checks import whole
from smallnets.losses import check_finite
from smallnets.measure import Latency, evaluating
from smallnets.measure.evaluation import example_input
from smallnets.storage import one_line

OPSET = 17
ALIKE = 0.05  # of the largest logit: rounding stays far below, another network far above


def export(model: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """The network in evaluation mode as an ONNX model with batches of any size.

    The network is traced with a batch of one; a float32 network is then compared with what was
    exported on a batch of three random examples.

    Args:
        model: takes a batch `(n, *input_shape)` of floats and returns one tensor.
        input_shape: one example's shape, such as (3, 32, 32).

    Raises:
        ValueError: the exported model says something else than the network, or takes no other
            batch; or logits are not finite.
    """
    buffer = io.BytesIO()
    example = example_input(model, input_shape)
    with evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's advice is not the reader's concern
        torch.onnx.export(
            model,
            (example,),
            buffer,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    exported = buffer.getvalue()
    if example.dtype == torch.float32:
        generator = torch.Generator().manual_seed(0)
        _compare(model, exported, torch.rand(3, *example.shape[1:], generator=generator))
    return exported


def _compare(model: nn.Module, exported: bytes, examples: Tensor) -> None:
    """Raise ValueError unless network and exported model say the same of a batch."""
    like = example_input(model, tuple(examples.shape[1:]))
    with evaluating(model), torch.no_grad():
        outputs = model(examples.to(like.device))
    wanted = (outputs[0] if isinstance(outputs, tuple) else outputs).cpu()  # traced: (logits,)
    try:
        got = predict(simulation(exported), examples)
    except Exception as error:  # ONNX Runtime's own have no common ancestor
        raise ValueError(
            f"the network must take batches of any size; exported, it fails with {len(examples)} "
            f"examples ({one_line(error)})"
        ) from error
    if got.shape != wanted.shape or (off := _apart(got, wanted)) > ALIKE:
        found = f"shape {tuple(got.shape)}" if got.shape != wanted.shape else f"{off:.2g} of them"
        raise ValueError(
            f"the exported network must give the network's logits {tuple(wanted.shape)} for "
            f"{len(examples)} examples; it is off by {found}"
        )


def _apart(got: Tensor, wanted: Tensor) -> float:
    """The largest difference of an example's outputs over its largest output, mean over examples.

    Raises:
        ValueError: a number is not finite.
    """
    check_finite("logits", got)
    check_finite("logits", wanted)
    gaps, sizes = (one.flatten(1).abs().amax(1).double() for one in (got - wanted, wanted))
    return float((gaps / sizes.clamp_min(1e-12)).mean())


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
    """A session that runs an exported network on the CPU with so many threads, integers exactly.

    Where the fastest 8-bit kernels would cut sums off (`cuts_sums_off`), others are taken: an int8
    file is opened here, not with ONNX Runtime's own session, on a processor without VNNI
    instructions. Whichever are taken, an int8 file is compared with its own computation in floating
    point before it is given out.

    Raises:
        ValueError: the file is damaged, or runs otherwise here than in floating point.
    """
    options = onnxruntime.SessionOptions()
    if cuts_sums_off():
        options.add_session_config_entry(*EXACT_SUMS)
    options.intra_op_num_threads = whole("threads", threads, 1)
    options.inter_op_num_threads = 1
    session = _session(exported, options)
    if b"QuantizeLinear" in exported:
        examples = _probe(session.get_inputs()[0].shape)
        off = _apart(predict(session, examples), predict(simulation(exported), examples))
        if off > ALIKE:
            raise ValueError(
                "the file must run in integers as it does in floating point; on this processor "
                f"logits are off by {off:.2g} of the largest"
            )
    return session


def simulation(exported: bytes) -> onnxruntime.InferenceSession:
    """A session that computes what a file says step by step, in floating point: the reference."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return _session(exported, options)


def _session(exported: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own have no common ancestor
        raise ValueError(
            f"exported must be a whole ONNX model, as export gives it; {one_line(error)}"
        ) from error


def _probe(shape: Sequence[int | str]) -> Tensor:
    """Examples that drive activations to both ends of their grids: noise, more noise, constants."""
    sides = [one if isinstance(one, int) else 1 for one in shape[1:]]
    noise = torch.randn(2, *sides, generator=torch.Generator().manual_seed(0))
    ends = torch.full((1, *sides), 100.0)
    examples = torch.cat([noise[:1], 8 * noise[1:], ends, -ends])
    return examples[: shape[0]] if isinstance(shape[0], int) else examples


def predict(session: onnxruntime.InferenceSession, x: Tensor) -> Tensor:
    """Logits (n, classes) of a batch (n, ...) as the network takes it."""
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.detach().cpu().numpy()})
    return torch.from_numpy(logits)


def difference(model: nn.Module, session: onnxruntime.InferenceSession, x: Tensor) -> float:
    """The largest difference between torch's logits and the session's, over torch's largest.

    Raises:
        ValueError: there are no examples, shapes differ, or logits are not finite.
    """
    with evaluating(model), torch.no_grad():
        logits = model(x)
    return largest_difference(predict(session, x), logits.cpu())


def largest_difference(got: Tensor, wanted: Tensor) -> float:
    """The largest difference between two networks' outputs (n, ...), over the largest wanted one.

    Raises:
        ValueError: there are none, shapes differ, or a number is not finite.
    """
    if got.shape != wanted.shape or got.numel() == 0:
        raise ValueError(
            "outputs must have one shape with n at least 1; "
            f"got {tuple(got.shape)} and {tuple(wanted.shape)}"
        )
    check_finite("logits", got)
    check_finite("logits", wanted)
    gap, size = float((got - wanted).abs().max()), float(wanted.abs().max())
    return gap / max(size, 1e-12)


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
