"""A trained network seen as a row of replaceable layers between parts that stay.

Any `nn.Module` will do: its replaceable layers are named, as in `network.named_modules()`. All else
(stem, head, whatever lies between) is fixed. A layer takes one tensor, returns one, and runs once
in a forward pass.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smallnets.measure import evaluating
from smallnets.models.hooks import check_hooks
from smallnets.search.lana.operations import Shape
from smallnets.surgery import places_of, put


class Passed(NamedTuple):
    """What one forward pass showed."""

    logits: Tensor
    inputs: list[Tensor]  # of every layer: x_{i-1} of the paper
    outputs: list[Tensor]  # of every layer: x_i = t_i(x_{i-1})


class _ReachedError(Exception):
    """Ends a forward pass behind the last layer that is asked for."""


class Replay(nn.Module):
    """Stands where a layer was and returns what was computed before."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        """Anything -> the stored output."""
        return self.output


@dataclass(frozen=True, eq=False)
class ReplaceableLayers:
    """A network and its replaceable layers.

    Attributes:
        network: any module that maps a batch to logits.
        names: dotted names of the layers, in the order in which they run.
        example: a batch that the network takes; two examples are enough.

    Raises:
        ValueError: a name is not a submodule or given twice, a layer does not run exactly once with
            one tensor in and one out, the names are out of order, a layer's input or output is
            overwritten in place, or the network is compiled or scripted.
    """

    network: nn.Module
    names: tuple[str, ...]
    example: Tensor

    def __post_init__(self) -> None:
        modules = [name for name, _ in self.network.named_modules() if name]
        unknown = [name for name in self.names if name not in modules]
        if unknown or not self.names:
            given = ", ".join(map(repr, unknown)) or "none"
            raise ValueError(f"layers must be among {', '.join(modules)}; got {given}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"layers must differ; got {', '.join(self.names)}")
        check_hooks(self.network, self.names)
        _audit(self)

    @property
    def layers(self) -> list[nn.Module]:
        """The modules of that name, first to last."""
        return [self.network.get_submodule(name) for name in self.names]

    def passed(self, x: Tensor) -> Passed:
        """The logits for a batch, and the input and output of every layer."""
        with self._listening() as seen:
            logits = self.network(x)
        self._check_calls(len(seen), len(self.names))
        return Passed(logits, [given for given, _ in seen], [made for _, made in seen])

    def passed_until(self, x: Tensor, last: int) -> list[tuple[Tensor, Tensor]]:
        """Input and output of every layer up to number `last` for a batch. What lies behind it does
        not run.
        """
        with self._listening(last) as seen, suppress(_ReachedError):
            self.network(x)
        self._check_calls(len(seen), last + 1)
        return seen

    def _check_calls(self, heard: int, wanted: int) -> None:
        if heard != wanted:
            raise ValueError(
                f"each of {wanted} layers must be called once in a pass; {heard} calls were heard"
            )

    @contextmanager
    def _listening(self, last: int | None = None) -> Iterator[list[tuple[Tensor, Tensor]]]:
        seen: list[tuple[Tensor, Tensor]] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen.append((inputs[0], output))
            if len(seen) - 1 == last:
                raise _ReachedError

        handles = [layer.register_forward_hook(keep) for layer in self.layers]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    @cached_property
    def sizes(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Shapes of one example at every layer's input and output."""
        with evaluating(self.network), torch.no_grad():
            seen = self.passed(self.example)
        pairs = zip(seen.inputs, seen.outputs, strict=True)
        return [(tuple(given.shape[1:]), tuple(made.shape[1:])) for given, made in pairs]

    @property
    def shapes(self) -> list[Shape]:
        """What every layer maps to what.

        Raises:
            ValueError: a layer does not map images to images of a size divided by a whole stride.
        """
        return [_shape(name, *pair) for name, pair in zip(self.names, self.sizes, strict=True)]

    def check(self, layer: int, name: str, candidate: nn.Module) -> None:
        """Raise ValueError if a candidate does not map what the layer maps."""
        given, made = self.sizes[layer]
        like = self.example
        with evaluating(candidate), torch.no_grad():
            try:
                got = tuple(candidate(like.new_zeros(2, *given)).shape[1:])
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"{name} of layer {self.names[layer]} does not take {given}: {reason}"
                ) from error
        if got != made:
            raise ValueError(
                f"{name} of layer {self.names[layer]} must map {given} to {made}; got {got}"
            )

    @contextmanager
    def replaced(self, modules: Mapping[int, nn.Module]) -> Iterator[nn.Module]:
        """The network with other modules in some layers' places, until the block ends."""
        before = self.layers
        places = places_of(self.network, before)
        try:
            for layer, module in modules.items():
                put(places[layer], module)
            yield self.network
        finally:
            for layer in modules:
                put(places[layer], before[layer])

    def stitched(self, modules: Sequence[nn.Module]) -> nn.Module:
        """A network of its own with these modules as layers: everything is a deep copy."""
        with self.replaced(dict(enumerate(modules))):
            return copy.deepcopy(self.network)


def _audit(layered: ReplaceableLayers) -> None:
    """One pass of the example that checks all that `ReplaceableLayers` promises."""
    order: list[str] = []
    seen: list[tuple[str, Tensor, int]] = []
    handles = []
    for name, layer in zip(layered.names, layered.layers, strict=True):

        def look(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            if len(inputs) != 1 or not all(isinstance(x, Tensor) for x in (*inputs, output)):
                raise ValueError(f"layer {name} must take one tensor and return one")
            order.append(name)
            seen.append((name, inputs[0], inputs[0]._version))
            seen.append((name, output, output._version))

        handles.append(layer.register_forward_hook(look))
    with evaluating(layered.network), torch.no_grad():
        try:
            before = layered.example._version
            layered.network(layered.example)
        finally:
            for handle in handles:
                handle.remove()
    changed = [name for name, tensor, version in seen if tensor._version != version]
    if changed or layered.example._version != before:
        where = f"what layer {changed[0]} takes or gives" if changed else "its input"
        raise ValueError(f"the network overwrites {where} in place: set inplace=False")
    for name in layered.names:
        if order.count(name) != 1:
            raise ValueError(
                f"layer {name} must run once in a forward pass; it runs {order.count(name)} times"
            )
    if tuple(order) != layered.names:
        raise ValueError(f"layers must be named as they run, {', '.join(order)}")


def _shape(name: str, given: tuple[int, ...], made: tuple[int, ...]) -> Shape:
    if len(given) == len(made) == 3:
        (_, height, width), (_, tall, wide) = given, made
        for stride in range(1, max(height, width) + 1):
            if (tall, wide) == (-(-height // stride), -(-width // stride)):
                return Shape(given[0], made[0], stride, height, width)
    raise ValueError(
        f"layer {name} must map (channels, height, width) to a size divided by a stride and "
        f"rounded up; it maps {given} to {made}"
    )
