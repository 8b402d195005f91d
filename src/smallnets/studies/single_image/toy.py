"""A toy in the plane: a teacher of three classes, and students that it teaches at any points."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from smallnets.training import seeded

EDGE = 1.0  # the plane reaches from -EDGE to EDGE


def spiral_teacher(points: Tensor) -> Tensor:
    """Logits (n, 3) of points (n, 2): three arms that wind around the middle."""
    radius, angle = points.norm(dim=1), torch.atan2(points[:, 1], points[:, 0])
    arms = 2 * math.pi * torch.arange(3) / 3
    return 4 * torch.cos(angle[:, None] + 4 * radius[:, None] - arms)


def small_network(seed: int, width: int = 24) -> nn.Sequential:
    """A network from the plane to three logits, with two hidden layers."""
    with seeded(seed):
        first, second, last = (nn.Linear(a, b) for a, b in pairwise((2, width, width, 3)))
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)


def scattered(count: int, seed: int, low: float = -EDGE, high: float = EDGE) -> Tensor:
    """Points (count, 2), uniform in a square from `low` to `high`."""
    drawn = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * drawn


def grid(side: int = 100) -> Tensor:
    """Points (side * side, 2) all over the plane, row by row from below."""
    line = torch.linspace(-EDGE, EDGE, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)
