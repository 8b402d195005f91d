"""What each layer of a network costs: multiply-adds, parameters, and numbers in and out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from smallnets.checks import whole
from smallnets.measure.evaluation import evaluating, example_input
from smallnets.storage import one_line


@dataclass(frozen=True)
class LayerSize:
    """One module with multiply-adds or parameters of its own, in one pass over one example.

    Attributes:
        name: dotted; "" is the network itself.
        kind: name of its class.
        macs: multiply-adds of its own, those of modules inside it left out.
        parameters: of its own; a parameter that several modules share counts with the first.
        inputs, outputs: numbers read and written, over all its calls.
    """

    name: str
    kind: str
    macs: int
    parameters: int
    inputs: int
    outputs: int


def layer_sizes(model: nn.Module, input_shape: tuple[int, ...]) -> list[LayerSize]:
    """Size every module that has multiply-adds or parameters of its own, in order of the network.

    Counted as in `measure.macs`; the sums over all layers are `measure.macs` and
    `measure.parameters`.

    Args:
        model: takes a batch `(n, *input_shape)` of floats.
        input_shape: one example's shape, such as (3, 32, 32).

    Raises:
        ValueError: a side below 1, or a shape that the network does not take.
    """
    counter = FlopCounterMode(display=False)
    seen: dict[str, list[int]] = {name: [0, 0] for name, _ in model.named_modules()}

    def look(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen[name][0] += _numbers(args)
            seen[name][1] += _numbers(output)

        return hook

    example = model_input(model, input_shape)
    handles = [one.register_forward_hook(look(name)) for name, one in model.named_modules()]
    try:
        with evaluating(model), torch.no_grad(), counter:
            model(example)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"input_shape must be one that the network takes; got {tuple(input_shape)} "
            f"({one_line(error)})"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    root = type(model).__name__
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}

    modules = dict(model.named_modules())

    def inside(name: str) -> int:
        children = (child for child, _ in modules[name].named_children()) if name in modules else ()
        return sum(whole_macs(f"{name}.{child}".lstrip(".")) for child in children)

    @cache
    def whole_macs(name: str) -> int:
        """Of a module and all in it, which may be called without it: `for one in self.layers`."""
        return max(flops.get(f"{root}.{name}" if name else "Global", 0) // 2, inside(name))

    found, counted = [], set[int]()
    for name, module in modules.items():
        macs = whole_macs(name) - inside(name)
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted.update(id(parameter) for parameter in own)
        count = sum(parameter.numel() for parameter in own)
        if macs or count:
            found.append(LayerSize(name, type(module).__name__, macs, count, *seen[name]))
    return found


def model_input(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """One example of zeros, of the device and type of the network's weights.

    Raises:
        ValueError: no shape of whole numbers from 1.
    """
    if isinstance(input_shape, int | str) or len(list(input_shape)) == 0:
        raise ValueError(
            f"input_shape must be one example's sizes, such as (3, 32, 32); got {input_shape!r}"
        )
    for side in input_shape:
        whole("every side of input_shape", side, 1)
    return example_input(model, tuple(input_shape))


def _numbers(given: Any) -> int:
    """How many numbers tensors hold, also within tuples, lists and dictionaries."""
    if isinstance(given, Tensor):
        return given.numel()
    if isinstance(given, dict):
        return sum(map(_numbers, given.values()))
    return sum(map(_numbers, given)) if isinstance(given, tuple | list) else 0
