"""Which channels go together: the groups of a network's dependency graph, and gates for them.

A residual stream is written by many convolutions, and its channel can only be removed from all of
them at once. Torch-Pruning (Fang et al., CVPR 2023) finds such groups in a trace of the network;
here they become plain data: names of modules, sides, and channel numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from smallnets import checks
from smallnets.prune.importance.gates import Site
from smallnets.prune.importance.tracing import WEIGHTED, dependency_graphs


@dataclass(frozen=True)
class Member:
    """A slice of a module that belongs to a group.

    Attributes:
        module: its dotted name.
        side: "out" for what the module makes (rows of weights, entries of a norm), "in" for what it
            reads (columns of weights).
        places: channels of that side.
        units: for each of them the unit of the group that it belongs to.
        width: channels of that side, whether the group's or not.
    """

    module: str
    side: str
    places: tuple[int, ...]
    units: tuple[int, ...]
    width: int

    @property
    def site(self) -> Site:
        """Where a gate on this slice acts."""
        if self.places == self.units == tuple(range(self.width)):
            return Site(self.module)
        return Site(self.module, "out", self.places, self.units)


@dataclass(frozen=True)
class ChannelGroup:
    """Units that can be removed one by one, each from all of the group's members.

    Attributes:
        name: of the first module, whose output channels the units are.
        size: number of units.
        blocks: channels of the first module that make a unit: 1, or the number of blocks of a
            grouped convolution, which has to lose as many channels in each.
        members: all slices, the first module's first.
        norms: the members that are BatchNorm, which gates follow.
    """

    name: str
    size: int
    blocks: int
    members: tuple[Member, ...]
    norms: tuple[Member, ...]

    @property
    def producers(self) -> tuple[Member, ...]:
        """The convolutions and linear layers that write the group's channels."""
        norms = {member.module for member in self.norms}
        return tuple(m for m in self.members if m.side == "out" and m.module not in norms)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where one shared gate removes a unit exactly: behind the norms, or else the producers."""
        return tuple(member.site for member in self.norms or self.producers)

    def channels(self, units: Iterable[int]) -> list[int]:
        """The output channels of the first module that belong to units."""
        return [unit + self.size * block for block in range(self.blocks) for unit in units]


def channel_groups(
    model: nn.Module, example: Tensor, ignored: Sequence[str] = ()
) -> dict[str, ChannelGroup]:
    """The groups of a network in which a zeroed channel can as well be taken out.

    Left alone are the layers that make the output, groups that reach a norm over channels
    (LayerNorm, GroupNorm), attention or a free parameter, where zero is not the same as absent, and
    groups that nothing is known to write or to read. Where feature maps are put together in another
    order (windows of attention, shuffled channels), only what lies between is looked at.

    Args:
        model: any network of convolutions, BatchNorm and linear layers, in the main.
        example: (batch, ...) input of the size that it will see.
        ignored: dotted names of modules whose output channels stay.

    Raises:
        ValueError: an unknown name, or a network without any such group.
    """
    names = {module: name for name, module in model.named_modules()}
    modules = {name: module for module, name in names.items()}
    for name in ignored:
        checks.one_of("ignored module", name, modules)
    found: dict[str, ChannelGroup] = {}
    for graph in dependency_graphs(model, example):
        for raw in graph.get_all_groups(ignored_layers=[modules[name] for name in ignored]):
            group = _plain(raw, graph, names)
            if group is not None:
                found[group.name] = group
    if not found:
        raise ValueError(
            f"the network must have convolutions or linear layers whose channels can be removed; "
            f"none was found in {type(model).__name__}"
        )
    return found


def _plain(raw: Any, graph: Any, names: Mapping[nn.Module, str]) -> ChannelGroup | None:
    root = raw[0].dep.target.module
    channels = len(raw[0].idxs)
    blocks, members, norms, written = 1, [], [], False
    for item in raw:
        module, handler = item.dep.target.module, item.dep.handler
        if isinstance(module, (*WEIGHTED, _BatchNorm)):
            if any(unit is None for unit in item.root_idxs):
                return None
            depthwise = _is_depthwise(module)
            side = "out" if graph.is_out_channel_pruning_fn(handler) or depthwise else "in"
            written |= side == "out" and isinstance(module, WEIGHTED) and not depthwise
            if isinstance(module, _ConvNd) and module.groups > 1 and not depthwise:
                if blocks not in (1, module.groups):
                    return None
                blocks = module.groups
            places, units = tuple(item.idxs), tuple(item.root_idxs)
            members.append((names[module], side, places, units, width_of(module, side)))
            if isinstance(module, _BatchNorm):
                norms.append(names[module])
        elif not type(module).__module__.startswith("torch_pruning") or _is_output(item):
            return None
    size, rest = divmod(channels, blocks)
    reads = any(member[1] == "in" for member in members)
    if rest or size < 2 or not reads or not written or names[root] not in {m[0] for m in members}:
        return None
    plain = tuple(
        Member(name, side, places, tuple(unit % size for unit in units), width)
        for name, side, places, units, width in members
    )
    behind = tuple(member for member in plain if member.module in norms)
    return ChannelGroup(names[root], size, blocks, plain, behind)


def width_of(module: nn.Module, side: str) -> int:
    """Channels of the "out" or "in" side of a convolution, linear layer or BatchNorm."""
    if isinstance(module, _BatchNorm):
        return module.num_features
    kind = "channels" if isinstance(module, _ConvNd) else "features"
    return int(getattr(module, f"{side}_{kind}"))


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.groups == module.out_channels > 1


def _is_output(item: Any) -> bool:
    return type(item.dep.target.module).__name__ == "_OutputOp"


def group_sites(groups: Mapping[str, ChannelGroup]) -> dict[str, tuple[Site, ...]]:
    """The shared gate of every group: name -> where it acts."""
    return {name: group.sites for name, group in groups.items()}
