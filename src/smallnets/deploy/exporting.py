"""Any network as an ONNX file whose answers are compared with the network's, to a stated tolerance.

In floating point the two differ by roundings of sums. A network with quantisers also rounds, here
and there, to another level; where the file computes with integers, a little more of that.
"""

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from smallnets.batches import Batches, Source, first_weights
from smallnets.checks import above
from smallnets.deploy import onnx_runtime
from smallnets.deploy.int8 import export_int8
from smallnets.deploy.whole_numbers import export_whole_numbers
from smallnets.measure import evaluating, one_tensor
from smallnets.measure.layers import model_input
from smallnets.quantize.genie.network import QuantizedNetwork
from smallnets.quantize.integer import IntegerNetwork
from smallnets.quantize.modules import Quantizer, as_plain
from smallnets.storage import atomic_path, one_line, user_path

TOLERANCES = {"float": 1e-4, "rounded": 0.05, "int8": 0.1}
"""Largest difference of an output, over the largest output, by kind of network."""

MOST_EXAMPLES = 32
Network: TypeAlias = nn.Module | QuantizedNetwork | IntegerNetwork


@dataclass(frozen=True, eq=False)
class Exported:
    """An exported network that says what the network says.

    Attributes:
        file: the ONNX model.
        kind: "float", "rounded" (quantisers in floating point) or "int8" (integer arithmetic).
        difference: the largest that was found, over the largest output.
        tolerance: that it had to keep.
        batches: sizes of the batches that were compared.
        path: where the file lies, if it was written.
    """

    file: bytes = field(repr=False)
    kind: str
    difference: float
    tolerance: float
    batches: tuple[int, ...]
    path: Path | None = None

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self.file)


def export_checked(
    network: Network,
    input_shape: tuple[int, ...],
    path: str | Path | None = None,
    *,
    examples: Tensor | Batches | Source | None = None,
    tolerance: float | None = None,
) -> Exported:
    """Export a network for ONNX Runtime and compare both on batches of several sizes.

    Args:
        network: any `nn.Module` of float32 that takes a batch `(n, *input_shape)` and returns one
            tensor: as it is, pruned, of low rank, small by design; or with the quantisers of
            `smallnets.quantize.modules` (their rounding in floating point); or quantised by
            `smallnets.quantize.genie` with symmetric weights, or made by
            `smallnets.quantize.to_integer` (both in integers).
        input_shape: one example's shape, such as (3, 32, 32).
        path: where to write the file, whole or not at all.
        examples: (n, ...) on which both are compared beside random ones; of batches the first.
        tolerance: see `TOLERANCES`; above 0.

    Raises:
        ValueError: in one line: what the exporter or ONNX Runtime refuses, another type of numbers,
            answers that differ by more than the tolerance, or that are not finite.
    """
    kind = _kind(network)
    allowed = above("tolerance", TOLERANCES[kind] if tolerance is None else tolerance, 0)
    given = _examples(network, input_shape, examples)
    file = _file(network, input_shape)
    session = onnx_runtime.load(file)
    sizes = tuple(sorted({1, 2, len(given)}))
    off = 0.0
    for size in sizes:
        part = given[-size:]
        try:
            got = onnx_runtime.predict(session, part)
        except Exception as error:  # ONNX Runtime's own have no common ancestor
            raise ValueError(
                f"the exported network must run on batches of any size; with {size} it fails "
                f"({one_line(error)[:300]})"
            ) from None
        off = max(off, onnx_runtime.largest_difference(got, _answers(network, part)))
    if off > allowed:
        raise ValueError(
            f"the exported network must answer as the network does, to {allowed:g} of the largest "
            f"output; it is off by {off:.2g}"
        )
    written = None
    if path is not None:
        written = user_path(path)
        try:
            with atomic_path(written) as temporary:
                temporary.write_bytes(file)
        except OSError as error:
            raise ValueError(f"{written} cannot be written ({one_line(error)})") from None
    return Exported(file, kind, off, float(allowed), sizes, written)


def _kind(network: Network) -> str:
    if isinstance(network, QuantizedNetwork | IntegerNetwork):
        return "int8"
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must be an nn.Module; got {type(network).__name__}")
    rounds = any(isinstance(module, Quantizer) for module in network.modules())
    return "rounded" if rounds else "float"


def _examples(
    network: Network, input_shape: tuple[int, ...], given: Tensor | Batches | Source | None
) -> Tensor:
    """Random examples, then those that were given."""
    if isinstance(network, nn.Module):
        weights = first_weights(network)
        if weights is not None and weights.dtype != torch.float32:
            raise ValueError(
                f"the network must have float32 weights to be exported; got {weights.dtype}"
            )
    like = nn.Identity() if isinstance(network, IntegerNetwork) else network
    one = model_input(like, input_shape)
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *one.shape[1:], generator=draws)
    if given is None:
        return noise
    own: Any = given
    if not isinstance(given, Tensor):
        batches = given if isinstance(given, Batches) else Batches(given)
        own = batches.without_labels().first()[0]
    if tuple(own.shape[1:]) != tuple(one.shape[1:]) or len(own) == 0:
        raise ValueError(
            f"examples must have the shape (n, {', '.join(map(str, input_shape))}); got "
            f"{tuple(own.shape)}"
        )
    return torch.cat([noise, own[:MOST_EXAMPLES].detach().cpu().float()])


def _file(network: Network, input_shape: tuple[int, ...]) -> bytes:
    if isinstance(network, IntegerNetwork):
        return export_whole_numbers(network, input_shape)
    try:
        with torch.no_grad(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if isinstance(network, QuantizedNetwork):
                return export_int8(network, input_shape)
            if _kind(network) == "rounded":
                network = as_plain(network)
            return onnx_runtime.export(network, input_shape)
    except ValueError:
        raise
    except Exception as error:  # the exporter's own, and whatever a network raises of a wrong shape
        raise ValueError(f"the network cannot be exported: {one_line(error)[:300]}") from None


@torch.no_grad()
def _answers(network: Network, examples: Tensor) -> Tensor:
    if isinstance(network, IntegerNetwork):
        return network(examples)
    weights = first_weights(network)
    examples = examples if weights is None else examples.to(weights.device)
    with evaluating(network):
        return one_tensor(network(examples)).cpu()
