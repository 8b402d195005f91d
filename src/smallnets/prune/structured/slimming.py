"""Network slimming: a penalty on the scales of BatchNorm (Liu et al., ICCV 2017).

L = CE + lambda sum |gamma|; then the channels of the smallest |gamma| of the whole network go.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.prune.importance import weight_scores
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.prune.structured.channels import Grouped, channel_masks
from smallnets.training import Batch
from smallnets.training.loop import Objective


@dataclass(frozen=True)
class Slimming:
    """The objective of a `Grouped` network that shrinks the scales of its norms.

    Attributes:
        strength: lambda; the paper's are 1e-4 and 1e-5.
        objective: what is learned.

    Raises:
        ValueError: a strength below 0.
    """

    strength: float = 1e-4
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.at_least("strength", self.strength, 0)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms with the penalty in "loss", and "scales", the sum of |gamma|."""
        scales = norm_scales(behind_fabric(model, Grouped, self))
        size = torch.stack([scale.abs().sum() for scale in scales.values()]).sum()
        terms = self.objective(model, batch)
        return terms | {"loss": terms["loss"] + self.strength * size, "scales": size}


def norm_scales(grouped: Grouped) -> dict[str, nn.Parameter]:
    """Scales gamma of the norms behind the groups, by the norms' names.

    Raises:
        ValueError: a group without BatchNorm, or a norm without scale.
    """
    found = {}
    for group in grouped.groups.values():
        if not group.norms:
            raise ValueError(f"slimming needs groups with BatchNorm; {group.name!r} has none")
        for member in group.norms:
            scale = grouped.network.get_submodule(member.module).weight
            if scale is None:
                raise ValueError(f"norm {member.module!r} must have a scale; it has affine=False")
            found[member.module] = scale
    return found  # type: ignore[return-value]


def slimmed(grouped: Grouped, amount: float, example: Tensor, *, least: int = 1) -> nn.Module:
    """A smaller copy of a network, without the share of channels of the smallest |gamma|.

    Args:
        grouped: trained by `Slimming`.
        amount: share of all its channels that go; one threshold for the whole network.
        example: (batch, ...) input for the trace.
        least: channels that every group keeps.

    Raises:
        ValueError: see `channel_masks` and `importance.remove`.
    """
    found = weight_scores(grouped.network, grouped.groups, "BN scale")
    return grouped.without(channel_masks(found, amount, "global", least=least), example)
