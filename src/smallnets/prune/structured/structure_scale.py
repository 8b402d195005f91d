"""Parameterised structured pruning: a learned scale a structure (Schindler et al., PSP).

    w_eff = w nu(alpha),   nu(alpha) = 0 if |alpha| < eps, else alpha

The gradient passes the dead zone as if it were not there, so that a structure may come back; decay
of the alphas does the pruning.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.prune.structured.gated import GatedChannels
from smallnets.training import Batch
from smallnets.training.loop import Objective


class _DeadZone(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, eps: float) -> Tensor:
        return torch.where(alpha.abs() < eps, torch.zeros_like(alpha), alpha)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return upstream, None


def dead_zone(alpha: Tensor, eps: float) -> Tensor:
    """nu(alpha): zero where |alpha| < eps, else alpha; its gradient is that of the identity.

    Args:
        alpha: of any shape.
        eps: half the width of the zone, at least 0.
    """
    return _DeadZone.apply(alpha, checks.at_least("eps", eps, 0))


class StructureScale(nn.Module):
    """Scales with a dead zone, one a channel, all 1 at the start.

    Behind a convolution or linear layer this is w_eff = w nu(alpha); behind BatchNorm it scales
    what the norm gives, as the norm would undo a scale before it.

    Args:
        units: how many.
        eps: half the width of the dead zone, in [0, 1).
    """

    def __init__(self, units: int, eps: float = 0.1) -> None:
        super().__init__()
        checks.whole("units", units, 1)
        if not 0 <= checks.at_least("eps", eps, 0) < 1:
            raise ValueError(f"eps must be below 1, where scales start; got {eps!r}")
        self.alpha, self.eps = nn.Parameter(torch.ones(units)), eps

    def forward(self) -> Tensor:
        """Scales (units,)."""
        return dead_zone(self.alpha, self.eps)


@dataclass(frozen=True)
class ScaleDecay:
    """The objective of `GatedChannels` with `StructureScale` gates: their decay in the loss.

    Attributes:
        strength: of the sum of alpha^2 / 2 ("L2") or |alpha| ("L1"), beside the decay that the
            optimiser has for all parameters.
        kind: "L2" or "L1".
        objective: what is learned.

    Raises:
        ValueError: a strength below 0 or another kind.
    """

    strength: float = 1e-3
    kind: str = "L1"
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.at_least("strength", self.strength, 0)
        checks.one_of("kind", self.kind, ("L1", "L2"))

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms with the decay in "loss", and "open", the share of channels."""
        gates = behind_fabric(model, GatedChannels, self).gates
        wrong = [type(gate).__name__ for gate in gates if not isinstance(gate, StructureScale)]
        if wrong:
            raise ValueError(f"ScaleDecay needs gates of StructureScale; got {wrong[0]}")
        alphas = torch.cat([gate.alpha for gate in gates])  # type: ignore[misc]
        sizes = alphas.square() / 2 if self.kind == "L2" else alphas.abs()
        open_ = torch.cat([gate() != 0 for gate in gates]).float().mean()
        terms = self.objective(model, batch)
        return terms | {"loss": terms["loss"] + self.strength * sizes.sum(), "open": open_}
