"""A network whose channels have learned gates, and the network that they leave.

Gates act where a channel can be removed exactly: behind the norms of its group, or behind its
producers where there are none. A gate before a norm would be undone by it.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from smallnets.measure import evaluating
from smallnets.prune.importance import ChannelGroup, channel_groups, gated, group_sites, remove
from smallnets.prune.importance.groups import Member
from smallnets.prune.structured.channels import by_output, open_units
from smallnets.surgery import check_plain


def scaled(weight: Tensor, scale: Tensor, dim: int = 0) -> Tensor:
    """A weight whose structures are multiplied: w_eff = w nu, as in PSP.

    Args:
        weight: of any shape.
        scale: one number for each place of a dimension.
        dim: that dimension; 0 is filters, 1 input channels.

    Raises:
        ValueError: another number of scales than places.
    """
    if scale.shape != (weight.shape[dim],):
        raise ValueError(
            f"scale must have shape ({weight.shape[dim]},), one number for each place of dimension "
            f"{dim}; got {tuple(scale.shape)}"
        )
    return weight * scale.view([-1 if place == dim else 1 for place in range(weight.ndim)])


class GatedChannels(nn.Module):
    """A network with one gate of a kind on every group of channels.

    Args:
        network: trained in place.
        groups: of this network, from `importance.channel_groups`.
        gates: for every group in its order a module that, called without arguments, gives its
            units' gates (units,); in evaluation without chance.

    Raises:
        ValueError: no groups, or another number of gates.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Mapping[str, ChannelGroup],
        gates: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        if not groups or len(groups) != len(gates):
            raise ValueError(
                f"gates must be one for every group; got {len(gates)} for {len(groups)} groups"
            )
        self.network, self.groups = network, dict(groups)
        self.sites = group_sites(self.groups)
        self.gates = nn.ModuleList(gates)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        example: Tensor,
        kind: Any,
        ignored: Sequence[str] = (),
        **settings: Any,
    ) -> Self:
        """With gates of a kind on all groups of a network that can be pruned.

        Args:
            network: trained in place.
            example: (batch, ...) input for the trace.
            kind: `HardConcrete` or `StructureScale`; made as kind(units, **settings).
            ignored: dotted names of modules whose output channels get none.
            settings: of every gate.
        """
        groups = channel_groups(network, example, ignored)
        gates = [kind(group.size, **settings).to(example.device) for group in groups.values()]
        return cls(network, groups, gates)

    def values(self) -> dict[str, Tensor]:
        """Group -> gates (units,); in training they may be drawn."""
        return {name: gate() for name, gate in zip(self.groups, self.gates, strict=True)}

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network says with its gates."""
        with gated(self.network, self.sites, self.values()):
            return self.network(inputs)

    @torch.no_grad()
    def settled(self) -> dict[str, Tensor]:
        """Group -> gates (units,) without chance, as in evaluation."""
        with evaluating(self.gates):
            return self.values()

    def masks(self) -> dict[str, Tensor]:
        """Group -> (units,), 0 where the gate is closed without chance; one unit always stays."""
        return open_units({name: value.abs() for name, value in self.settled().items()})

    @torch.no_grad()
    def plain(self, example: Tensor) -> nn.Module:
        """A smaller copy of the network without gates, which says what this one says in evaluation.

        Open gates are multiplied into norms and filters, closed channels are taken out.

        Args:
            example: (batch, ...) input for the trace.

        Raises:
            ValueError: a norm without scale, or channels that cannot be removed.
        """
        network, values = copy.deepcopy(self.network), self.settled()
        for name, group in self.groups.items():
            for member in group.norms or group.producers:
                fold(network, member, values[name])
        return remove(network, self.groups, self.masks(), example)


@torch.no_grad()
def fold(network: nn.Module, member: Member, gates: Tensor) -> None:
    """Multiply the gates of a group into a norm or producer of it, in place.

    Raises:
        ValueError: a layer whose weight is missing or not a plain parameter.
    """
    layer = network.get_submodule(member.module)
    check_plain(member.module, layer)
    factors = gates.new_ones(member.width)
    factors[list(member.places)] = gates[list(member.units)]
    for part in (by_output(layer), layer.bias):
        if part is not None:
            part.copy_(scaled(part, factors.to(part.dtype)))  # type: ignore[arg-type, operator]
