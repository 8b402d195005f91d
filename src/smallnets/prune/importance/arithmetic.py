"""What removing channels saves in the published networks, by counting alone.

A count needs the widths and no weights, so it can be done on torchvision's network without training
it. It can say whether published numbers fit together and where channels must have gone; it cannot
say which channels those were, or what accuracy is left.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torchvision.models import get_model

from smallnets import checks
from smallnets.prune.importance.groups import ChannelGroup, channel_groups
from smallnets.prune.importance.schedule import PUBLISHED
from smallnets.prune.importance.surgery import Costs, costs

# Multiply-accumulates (1e9) and parameters (1e6) as published, by the share of gates that stays.
REPORTED = {
    "resnet50": {0.91: (3.27, 22.6), 0.81: (2.66, 17.9), 0.72: (2.25, 14.2), 0.56: (1.34, 7.9)},
    "resnet101": {0.75: (4.70, 31.2), 0.55: (2.85, 20.7), 0.50: (2.47, 17.8), 0.40: (1.76, 13.6)},
}


@dataclass(frozen=True)
class Counted:
    """A published bottleneck network, its groups, and what it costs at 224 pixels.

    Attributes:
        network: on PyTorch's "meta" device, without weights, at which a count does not look.
        groups: all that can be pruned; the paper leaves the stem's alone.
        costs: multiply-accumulates and parameters as functions of what is kept.
        parts: part of the network -> its groups, such as "stage 2 inner" and "stage 2 stream".
    """

    network: nn.Module
    groups: Mapping[str, ChannelGroup]
    costs: Costs
    parts: Mapping[str, tuple[str, ...]]

    @property
    def prunable(self) -> dict[str, int]:
        """Group -> units, of all parts."""
        return {n: self.groups[n].size for names in self.parts.values() for n in names}

    @property
    def gates(self) -> int:
        """Number of units in all parts."""
        return sum(self.prunable.values())

    def kept(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Group -> units (not rounded) that stay, from the share of each group that stays."""
        return {name: share * self.groups[name].size for name, share in shares.items()}

    def priced(self, shares: Mapping[str, float]) -> tuple[float, float]:
        """Multiply-accumulates (1e9) and parameters (1e6) that are left."""
        kept = self.kept(shares)
        return self.costs.macs(kept) / 1e9, self.costs.parameters(kept) / 1e6

    def by_part(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Share of each part's gates that stays."""
        kept, sizes = self.kept(shares), self.prunable
        return {
            part: sum(kept[n] for n in names) / sum(sizes[n] for n in names)
            for part, names in self.parts.items()
        }

    def masks(self, shares: Mapping[str, float]) -> dict[str, Tensor]:
        """Masks that keep the first units of every group, as many as shares say, at least one."""
        return {
            name: (torch.arange(self.groups[name].size) < max(1, round(units))).float()
            for name, units in self.kept(shares).items()
        }


def counted(name: str) -> Counted:
    """One of the published networks, "resnet50" or "resnet101", from torchvision.

    Raises:
        ValueError: another network.
    """
    checks.one_of("network", name, PUBLISHED)
    with torch.device("meta"):
        network = get_model(name, weights=None).eval()
        groups = channel_groups(network, torch.zeros(1, 3, 64, 64))
        prices = costs(network, groups, torch.zeros(1, 3, 224, 224))
    parts: dict[str, tuple[str, ...]] = {}
    for group in groups.values():
        if group.name == "conv1":
            continue  # the stem keeps its channels
        stage = group.name.removeprefix("layer")[0]
        part = f"stage {stage} {'stream' if len(group.sites) > 1 else 'inner'}"
        parts[part] = (*parts.get(part, ()), group.name)
    return Counted(network, groups, prices, dict(sorted(parts.items())))


def even(network: Counted, gone: int) -> dict[str, float]:
    """Shares that take the same part out of every group, `gone` gates in all."""
    checks.between("gone", checks.whole("gone", gone, 0), 0, network.gates - 1)
    return dict.fromkeys(network.prunable, 1 - gone / network.gates)


def concentrated(network: Counted, part: str, gone: int) -> dict[str, float]:
    """Shares that take all `gone` gates out of one part, evenly.

    Raises:
        ValueError: an unknown part, or one that has not so many gates.
    """
    checks.one_of("part", part, network.parts)
    size = sum(network.groups[name].size for name in network.parts[part])
    checks.between("gone", gone, 0, size - 1)
    return {n: 1 - gone / size if n in network.parts[part] else 1.0 for n in network.prunable}


def explain(
    network: Counted, gone: int, macs: float, parameters: float, *, least: float = 0.02
) -> dict[str, float] | None:
    """Shares, near to even ones, that remove so many gates and leave just such costs.

    One of many ways to meet three numbers: a local minimum of the shares' variance over the gates,
    found from the even shares. None if the numbers are not met to a thousandth.

    Args:
        network: what is pruned.
        gone: gates removed.
        macs, parameters: that are left, in 1e9 and 1e6.
        least: smallest share of a group.
    """
    sizes = network.prunable
    units = np.array(list(sizes.values()), dtype=float)
    first = np.full(len(units), 1 - gone / network.gates)
    left = _costs_of_shares(network)
    goals = np.array([gone, 1e9 * macs, 1e6 * parameters])

    def misses(x: np.ndarray) -> np.ndarray:
        return np.array([network.gates - units @ x, *left(x)]) / goals - 1

    found = minimize(
        lambda x: float((units * (x - first) ** 2).sum() / units.sum()),
        first,
        method="SLSQP",
        bounds=[(least, 1)] * len(units),
        constraints={"type": "eq", "fun": misses},
        options={"maxiter": 1000, "ftol": 1e-12},  # so far that rounding decides no channel
    )
    if np.abs(misses(found.x)).max() >= 1e-3:
        return None
    return dict(zip(sizes, found.x.tolist(), strict=True))


def _costs_of_shares(network: Counted) -> Callable[[np.ndarray], tuple[float, float]]:
    """Multiply-accumulates and parameters as a function of the shares, on arrays: `Costs` for a
    search, which asks thousands of times.
    """
    prices, sizes = network.costs, network.prunable
    layers = list(prices.layers.values())
    work = np.array([layer.macs for layer in layers], dtype=float)
    weights = np.array([layer.parameters for layer in layers], dtype=float)
    out, into = (
        np.array([[side.get(name, 0.0) * units for name, units in sizes.items()] for side in sides])
        for sides in ([one.out for one in layers], [one.into for one in layers])
    )
    vectors = np.array([prices.vectors[name] * units for name, units in sizes.items()])

    def left(x: np.ndarray) -> tuple[float, float]:
        stays = (1 - out @ (1 - x)) * (1 - into @ (1 - x))
        parameters = weights @ stays + prices.fixed - vectors @ (1 - x)
        return float(work @ stays + prices.elsewhere), float(parameters)

    return left
