"""Scores of a whole group as practitioners compute them (Torch-Pruning's DepGraph, CVPR 2023).

Every slice of the group that holds weights is scored, also the columns of the layers that *read*
the channel, and the members' scores are reduced to one. Norms have no part in the Taylor scores of
release 1.6.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.prune.importance.groups import ChannelGroup, Member
from smallnets.surgery import check_plain

REDUCTIONS = ("mean", "sum", "max", "prod", "first")
WEIGHINGS = ("Taylor", "Taylor of sums", "magnitude", "magnitude L1", "BN scale")


def coupled_scores(
    model: nn.Module,
    group: ChannelGroup,
    gradients: Mapping[str, Tensor] | None = None,
    *,
    weighing: str = "Taylor",
    reduction: str = "mean",
    normalise: bool = False,
) -> Tensor:
    """Score of each unit of a group from all its members: (units,).

    Args:
        model: its weights.
        group: from `channel_groups`.
        gradients: of one batch, by the parameters' names; for the Taylor scores.
        weighing: of one slice. "Taylor" is the sum of |w dE/dw|, "Taylor of sums" |sum of w dE/dw|,
            "magnitude" the sum of squares, "magnitude L1" of sizes; "BN scale" looks at norms only.
        reduction: of the members: "mean", "sum", "max", "prod" or "first".
        normalise: divide by the group's mean, so that groups can only be compared relatively.

    Raises:
        ValueError: another weighing or reduction, a group without a member that it looks at, or
            scores that are 0 throughout and cannot be normalised.
    """
    checks.one_of("weighing", weighing, WEIGHINGS)
    checks.one_of("reduction", reduction, REDUCTIONS)
    norms = {member.module for member in group.norms}
    looked_at = [
        member
        for member in group.members
        if (member.module in norms or weighing != "BN scale")
        and not (member.module in norms and weighing.startswith("Taylor"))
    ]
    if not looked_at:
        raise ValueError(f"{weighing} needs members to look at; {group.name!r} has none")
    parts = [_slice_score(model, group, member, gradients, weighing) for member in looked_at]
    stacked = torch.stack(parts)
    reduced = {
        "mean": stacked.mean(0),
        "sum": stacked.sum(0),
        "max": stacked.amax(0),
        "prod": stacked.prod(0),
        "first": stacked[0],
    }[reduction]
    if not normalise:
        return reduced
    mean = reduced.mean()
    if not bool(mean > 0):
        raise ValueError(f"scores of {group.name!r} must have a mean above 0; got {mean.item():g}")
    return reduced / mean


def _slice_score(
    model: nn.Module,
    group: ChannelGroup,
    member: Member,
    gradients: Mapping[str, Tensor] | None,
    weighing: str,
) -> Tensor:
    layer = model.get_submodule(member.module)
    check_plain(member.module, layer)
    weight = layer.weight.detach()  # type: ignore[operator, union-attr]
    if weighing.startswith("Taylor"):
        if gradients is None:
            raise ValueError(f"{weighing} needs the gradients of a batch; got none")
        values = weight * gradients[f"{member.module}.weight"]
    else:
        values = weight
    if member.side == "in" and values.ndim > 1:
        values = values.transpose(0, 1)
    values = values.reshape(len(values), -1)
    if weighing == "Taylor of sums":
        score = values.sum(1).abs()
    elif weighing == "magnitude":
        score = values.square().sum(1)
    else:
        score = values.abs().sum(1)
    units = torch.tensor(member.units, device=score.device)
    places = torch.tensor(member.places, device=score.device)
    return score.new_zeros(group.size).index_add(0, units, score[places])
