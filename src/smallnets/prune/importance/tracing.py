"""Traces of a network: of the whole where that can be followed, of its parts where it cannot.

Torch-Pruning (Fang et al., CVPR 2023) follows channels through a network by its backward graph.
Where a forward pass takes feature maps apart and puts them together in another order (windows of
attention, shuffled channels), it loses its way or never comes to an end. Such modules are opened
here, and what they are made of is traced piece by piece; a piece's input and output keep their
channels, since what they are connected to is not seen.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from smallnets.measure import evaluating
from smallnets.models.hooks import uncompiled

WEIGHTED = (_ConvNd, nn.Linear)
REORDERINGS = {torch.ops.aten.permute.default, torch.ops.aten.transpose.int}
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)


def dependency_graphs(model: nn.Module, example: Tensor) -> list[Any]:
    """Torch-Pruning's graphs of a network: one of the whole, or one for each part.

    Args:
        model: run in evaluation mode and left as it is.
        example: (batch, ...) input.

    Raises:
        ValueError: the network is scripted, cannot be run on the example, or no part of it can be
            traced.
    """
    frozen = [
        parameter
        for parameter in model.parameters()
        if not parameter.requires_grad and parameter.is_floating_point()
    ]
    for parameter in frozen:
        parameter.requires_grad_(True)  # the trace follows gradients
    try:
        with evaluating(model), uncompiled(model, [name for name, _ in model.named_modules()]):
            sizes, opened = _watched(model, example)
            if opened:
                return list(_graphs_of_parts(model, sizes, opened, example))
            with _refusing():
                return [_graph(model, example)]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


class _Watch(TorchDispatchMode):
    """Notes the modules, in whose pass a feature map is split into blocks that change places."""

    def __init__(self, outside: int) -> None:
        super().__init__()
        self.outside, self.running, self.found = outside, list[nn.Module](), set[nn.Module]()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        blocks = function in REORDERINGS and arguments[0].ndim > self.outside
        # attention of PyTorch's own is one layer to Torch-Pruning
        if blocks and not any(isinstance(one, nn.MultiheadAttention) for one in self.running):
            self.found.update(self.running)
        return function(*arguments, **(options or {}))


def _watched(
    model: nn.Module, example: Tensor
) -> tuple[dict[nn.Module, torch.Size], set[nn.Module]]:
    """Sizes of what modules with one tensor for input are given, and the modules to be opened."""
    sizes: dict[nn.Module, torch.Size] = {}
    watch = _Watch(max(4, example.ndim))

    def enter(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        watch.running.append(module)
        if len(given) == 1 and not named and isinstance(given[0], Tensor):
            sizes.setdefault(module, given[0].shape)

    def leave(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        watch.running.pop()
        if not isinstance(output, Tensor):
            sizes.pop(module, None)

    with ExitStack() as stack:
        for module in model.modules():
            for handle in (
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave),
            ):
                stack.callback(handle.remove)
        with _refusing(), torch.no_grad(), watch:
            model(example)
    return sizes, watch.found


def _graphs_of_parts(
    module: nn.Module, sizes: dict[nn.Module, torch.Size], opened: set[nn.Module], example: Tensor
) -> Iterator[Any]:
    for child in module.children():
        if sum(isinstance(one, WEIGHTED) for one in child.modules()) < 2:
            continue  # nothing within that one layer writes and another reads
        if child in sizes and child not in opened:
            given = example.new_zeros(sizes[child])
            with _refusing():
                yield _graph(_Part(child, given), given)
        else:
            yield from _graphs_of_parts(child, sizes, opened, example)


class _Part(nn.Module):
    """A piece of a network between a free parameter and an operation of its own.

    Whatever groups reach the piece's input or output reach these, and are left alone for it.
    """

    def __init__(self, part: nn.Module, given: Tensor) -> None:
        super().__init__()
        self.part = part
        kinds = (*WEIGHTED, _BatchNorm, nn.LayerNorm)
        first = next(module for module in part.modules() if isinstance(module, kinds))
        dim = -1 if isinstance(first, (nn.Linear, nn.LayerNorm)) else 1
        shape = [1] * given.ndim
        shape[dim] = given.shape[dim]
        self.entry = nn.Parameter(given.new_ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x * self.entry) * 1.0


def _graph(module: nn.Module, example: Tensor) -> Any:
    with torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(module, example, verbose=False)


@contextmanager
def _refusing() -> Iterator[None]:
    """Failures of a pass or a trace as a ValueError of one line."""
    try:
        yield
    except FAILURES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"the network must be traceable with the example given: {reason}"
        ) from None
