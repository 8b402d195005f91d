"""L0 regularisation: gates that are really zero, and learned by gradients (Louizos et al., ICLR
2018).

    s = sigmoid((log u - log(1 - u) + log alpha) / beta),  z = clamp(s (zeta - gamma) + gamma, 0, 1)
    P(z != 0) = sigmoid(log alpha - beta log(-gamma / zeta))
    in evaluation  z = clamp(sigmoid(log alpha) (zeta - gamma) + gamma, 0, 1)

with u uniform in (0, 1).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.prune.importance.groups import ChannelGroup
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.prune.structured.gated import GatedChannels
from smallnets.training import Batch
from smallnets.training.loop import Objective

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def hard_concrete(log_alpha: Tensor, u: Tensor) -> Tensor:
    """Gates drawn from the hard concrete distribution.

    Args:
        log_alpha: of any shape.
        u: uniform numbers in (0, 1) of that shape.
    """
    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def hard_concrete_open(log_alpha: Tensor) -> Tensor:
    """Probability that a gate is not zero; the sum over gates is the expected L0 norm."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def hard_concrete_mean(log_alpha: Tensor) -> Tensor:
    """Gates without chance, for evaluation."""
    return (torch.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class HardConcrete(nn.Module):
    """Hard concrete gates: drawn in training, without chance in evaluation.

    Args:
        units: how many.
        open_share: probability that a gate is not zero at the start, in (0, 1).
    """

    def __init__(self, units: int, open_share: float = 0.95) -> None:
        super().__init__()
        checks.whole("units", units, 1)
        checks.between("open_share", open_share, 0.01, 0.99)
        start = math.log(open_share / (1 - open_share)) + BETA * math.log(-GAMMA / ZETA)
        self.log_alpha = nn.Parameter(torch.full((units,), start))

    def forward(self) -> Tensor:
        """Gates (units,) in [0, 1]."""
        if not self.training:
            return hard_concrete_mean(self.log_alpha)
        tiny = torch.finfo(self.log_alpha.dtype).eps
        u = torch.rand_like(self.log_alpha).clamp(tiny, 1 - tiny)
        return hard_concrete(self.log_alpha, u)

    def expected_l0(self) -> Tensor:
        """Expected number of gates that are not zero, a scalar."""
        return hard_concrete_open(self.log_alpha).sum()


@dataclass(frozen=True)
class L0:
    """The objective of `GatedChannels` with `HardConcrete` gates.

    Attributes:
        strength: of the expected share of filter weights whose gate is open. The paper's lambda
            is this divided by the number of those weights.
        objective: what is learned.

    Raises:
        ValueError: a strength below 0.
    """

    strength: float = 0.1
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.at_least("strength", self.strength, 0)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms with the penalty in "loss", and "open", that expected share."""
        share = expected_share(behind_fabric(model, GatedChannels, self))
        terms = self.objective(model, batch)
        return terms | {"loss": terms["loss"] + self.strength * share, "open": share}


def expected_share(network: GatedChannels) -> Tensor:
    """Expected share of the filters' weights whose gate is open, a scalar with a gradient.

    Raises:
        ValueError: gates of another kind.
    """
    parts, total = [], 0.0
    for (name, group), gate in zip(network.groups.items(), network.gates, strict=True):
        if not isinstance(gate, HardConcrete):
            raise ValueError(
                f"the gates of {name!r} must be HardConcrete; got {type(gate).__name__}"
            )
        size = filter_size(network.network, group)
        parts.append(size * gate.expected_l0())
        total += size * group.size
    return torch.stack(parts).sum() / total


def filter_size(network: nn.Module, group: ChannelGroup) -> float:
    """Weights in the filters that write one unit of a group."""
    layers = [(network.get_submodule(m.module), m) for m in group.producers]
    return sum(
        layer.weight.numel() / m.width * len(m.places) / group.size  # type: ignore[operator]
        for layer, m in layers
    )
