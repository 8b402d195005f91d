"""Whole channels by a criterion, and a network without them.

Norms of filters (Li et al., ICLR 2017), scales of BatchNorm (Liu et al., ICCV 2017) and Taylor
expansions (chapter 05) rank the channels; what goes is taken out of all layers that hold it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from smallnets import checks
from smallnets.prune.importance import (
    CRITERIA,
    ChannelGroup,
    channel_groups,
    divide_by_sites,
    remove,
    scores,
    weight_scores,
)
from smallnets.prune.importance.derivatives import Data
from smallnets.prune.importance.scores import OF_WEIGHTS, outputs_first
from smallnets.prune.sparse.masks import SCOPES, keep_largest


def channel_masks(
    found: Mapping[str, Tensor], amount: float, scope: str = "layer", *, least: int = 1
) -> dict[str, Tensor]:
    """Masks that close the channels of the smallest scores.

    Args:
        found: group -> (units,) scores.
        amount: share of the units that is closed, in [0, 1].
        scope: "layer" closes that share of every group, "global" of all together.
        least: units that every group keeps.

    Raises:
        ValueError: see `smallnets.prune.sparse.keep_largest`.
    """
    return keep_largest(found, amount, scope, least=least)


def prune_channels(
    network: nn.Module,
    example: Tensor,
    amount: float,
    criterion: str = "magnitude L1",
    scope: str = "layer",
    *,
    batches: Data | None = None,
    ignored: Sequence[str] = (),
    least: int = 1,
) -> nn.Module:
    """A smaller copy of a network, without its least important channels.

    Args:
        network: any network; left as it is.
        example: (batch, ...) input for the trace.
        amount: share of the channels that go, in [0, 1].
        criterion: "magnitude L1" or "magnitude" (squares) of the filters, "BN scale", "random", or
            one that looks at data, such as "Taylor FO": see `importance.CRITERIA`.
        scope, least: see `channel_masks`. With "global" the score of a residual stream is divided
            by the number of layers that write it, see `importance.divide_by_sites`.
        batches: pairs (inputs, labels), for criteria that look at data.
        ignored: dotted names of modules whose output channels stay.

    Returns:
        Its answers are those of the network with the same channels closed (`importance.masked`).
        BatchNorm keeps its statistics; see `smallnets.surgery.recalibrate`.

    Raises:
        ValueError: an unknown criterion, scope or module; an amount outside [0, 1] or that leaves a
            group less than `least`; no batches where the criterion needs them; or a network whose
            channels cannot be removed.
    """
    checks.between("amount", amount, 0, 1)
    checks.one_of("criterion", criterion, CRITERIA)
    checks.one_of("scope", scope, SCOPES)
    groups = channel_groups(network, example, ignored)
    if criterion in OF_WEIGHTS:
        found = weight_scores(network, groups, criterion)
    elif batches is None:
        raise ValueError(f"criterion {criterion!r} needs batches (inputs, labels); got none")
    else:
        found = scores(network, groups, batches, (criterion,))[criterion]
    if scope == "global":
        found = divide_by_sites(found, groups)
    return remove(network, groups, channel_masks(found, amount, scope, least=least), example)


def open_units(sizes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that keep what is above zero: group -> (units,), and the largest unit in any case."""
    masks = {}
    for name, size in sizes.items():
        masks[name] = (size > 0).float()
        masks[name][size.argmax()] = 1
    return masks


def by_output(layer: nn.Module) -> Tensor:
    """The weight of a layer, or a view of it, with its output channels first.

    Raises:
        ValueError: a transposed convolution in blocks, of which there is no such view.
    """
    if isinstance(layer, _ConvTransposeNd) and layer.groups > 1:
        raise ValueError(
            f"a transposed convolution must have groups=1 to be pruned; got {layer.groups}"
        )
    return outputs_first(layer, layer.weight)  # type: ignore[arg-type]


class Grouped(nn.Module):
    """A network that is trained with a penalty on its channels.

    Args:
        network: trained in place.
        groups: of this network, from `importance.channel_groups`.
    """

    def __init__(self, network: nn.Module, groups: Mapping[str, ChannelGroup]) -> None:
        super().__init__()
        self.network, self.groups = network, dict(groups)
        if not self.groups:
            raise ValueError("groups must be at least one; got none")

    @classmethod
    def of(cls, network: nn.Module, example: Tensor, ignored: Sequence[str] = ()) -> "Grouped":
        """With all groups of a network that can be pruned, see `importance.channel_groups`."""
        return cls(network, channel_groups(network, example, ignored))

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network says."""
        return self.network(inputs)

    def without(self, masks: Mapping[str, Tensor], example: Tensor) -> nn.Module:
        """A smaller copy of the network, without the channels whose mask is zero."""
        with torch.no_grad():
            return remove(self.network, self.groups, masks, example)
