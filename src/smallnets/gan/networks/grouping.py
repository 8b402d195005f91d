"""Which layers of any generator have to be equally wide: found in a trace, by Torch-Pruning.

All layers that write a residual stream, all norms on it and all layers that read it make up one
group (Fang et al., CVPR 2023). A group is plain data here: names, sides and channel numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._python_dispatch import TorchDispatchMode

from smallnets.measure import evaluating

WEIGHTED = (_ConvNd, nn.Linear)
NORMS = (_BatchNorm, _InstanceNorm)
REORDERINGS = {torch.ops.aten.permute.default, torch.ops.aten.transpose.int}
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)


@dataclass(frozen=True)
class Member:
    """A side of a layer, or a part of one, that belongs to a group.

    Attributes:
        layer: its dotted name.
        side: "out" for what it writes (of norms, what they pass on), "in" for what it reads.
        places: channels of that side.
        units: for each of them the unit of the group that it belongs to.
    """

    layer: str
    side: str
    places: tuple[int, ...]
    units: tuple[int, ...]


@dataclass(frozen=True)
class WidthGroup:
    """Layers that have to be equally wide.

    Attributes:
        name: of the first of them that writes.
        size: full width.
        members: their sides.
    """

    name: str
    size: int
    members: tuple[Member, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that write or pass on the group's channels."""
        return tuple(dict.fromkeys(m.layer for m in self.members if m.side == "out"))


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution writes every channel from the same one."""
    return (
        isinstance(module, _ConvNd)
        and module.groups == module.in_channels == module.out_channels > 1
    )


def sides_of(module: nn.Module) -> tuple[int, int]:
    """Full numbers of output and of input channels of a layer."""
    if isinstance(module, _ConvNd):
        return module.out_channels, module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return module.num_features, module.num_features  # type: ignore[return-value]


def width_groups(network: nn.Module, example: Tensor) -> dict[str, WidthGroup]:
    """The groups of a network whose widths can be changed, in the order of its layers.

    Left alone are images, groups that reach a norm over channels (LayerNorm, GroupNorm), grouped
    convolutions other than depthwise ones, attention or free parameters, layers before a pixel
    shuffle, and channels that nothing reads.

    Args:
        network: run once in evaluation mode, and left as it is.
        example: (batch, ...) input.

    Raises:
        ValueError: the network cannot be traced (as where windows or channels are put in another
            order, in which the trace loses its way), or has no such group.
    """
    names = {module: name for name, module in network.named_modules()}
    frozen = [p for p in network.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)  # the trace follows gradients
    found: list[WidthGroup] = []
    try:
        with evaluating(network), torch.enable_grad():
            with torch.no_grad(), _Watch(max(4, example.dim())):
                network(example)
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(network, example, verbose=False)
            for raw in graph.get_all_groups():
                found += _plain(raw, graph, names)
    except FAILURES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the generator must be traceable on the example: {reason}") from None
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not found:
        raise ValueError(
            f"the generator must have layers whose widths can vary; {type(network).__name__} has "
            "none that the trace could find"
        )
    order = {name: place for place, name in enumerate(names.values())}
    return {group.name: group for group in sorted(found, key=lambda group: order[group.name])}


class _Watch(TorchDispatchMode):
    """Refuses passes in which a feature map is split into blocks that change places."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        if function in REORDERINGS and arguments[0].ndim > self.axes:
            raise RuntimeError("it splits feature maps into blocks that change places")
        return function(*arguments, **(options or {}))


def _plain(raw: Any, graph: Any, names: Mapping[nn.Module, str]) -> list[WidthGroup]:
    """A group of the trace as plain data: one group, or several where a depthwise convolution reads
    a concatenation, and none where something cannot be sliced.
    """
    members = []
    for item in raw:
        module, handler = item.dep.target.module, item.dep.handler
        if isinstance(module, WEIGHTED + NORMS):
            grouped = isinstance(module, _ConvNd) and module.groups > 1
            if any(unit is None for unit in item.root_idxs) or (
                grouped and not is_depthwise(module)
            ):
                return []
            writes = graph.is_out_channel_pruning_fn(handler) or is_depthwise(module)
            side = "out" if writes or isinstance(module, NORMS) else "in"
            if max(item.idxs) >= sides_of(module)[side == "in"]:
                return []  # behind a pixel shuffle channels have other numbers
            members.append(Member(names[module], side, tuple(item.idxs), tuple(item.root_idxs)))
        elif not type(module).__module__.startswith("torch_pruning") or (
            type(module).__name__ == "_OutputOp"
        ):
            return []
    members = list(dict.fromkeys(members))  # a depthwise convolution is met from both sides
    modules = {name: module for module, name in names.items()}
    written: list[tuple[set[str], set[int]]] = []  # layers, and the units that they write together
    for member in members:
        module = modules[member.layer]
        if member.side == "out" and isinstance(module, WEIGHTED) and not is_depthwise(module):
            layers, units = {member.layer}, set(member.units)
            for other in [one for one in written if one[1] & units]:
                written.remove(other)
                layers, units = layers | other[0], units | other[1]
            written.append((layers, units))
    found = []
    for layers, units in written:
        number = {unit: place for place, unit in enumerate(sorted(units))}
        parts = tuple(part for member in members if (part := _part(member, number)).places)
        if len(units) > 1 and any(part.side == "in" for part in parts):
            first = next(name for name in names.values() if name in layers)
            found.append(WidthGroup(first, len(units), parts))
    return found


def _part(member: Member, number: Mapping[int, int]) -> Member:
    """What of a member belongs to some units, which get other numbers."""
    pairs = [
        (place, number[unit])
        for place, unit in zip(member.places, member.units, strict=True)
        if unit in number
    ]
    places, units = tuple(place for place, _ in pairs), tuple(unit for _, unit in pairs)
    return Member(member.layer, member.side, places, units)
