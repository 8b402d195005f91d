"""A toy in the plane: classes are clouds of points, and one sees at once what a network forgets."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smallnets.training import seeded

EDGE = 3.0  # the plane reaches from -EDGE to EDGE
SPREAD = 0.22  # standard deviation of a cloud
KNOWN = ((-1.0, 0.9), (-1.0, -0.9), (0.6, 0.0))  # middles of the classes that are learned first
AMONG = ((-0.2, 0.9), (-0.2, -0.9))  # new classes among them
AWAY = ((2.4, 1.9), (2.4, -1.9))  # new classes far from them


def clouds(
    middles: Sequence[tuple[float, float]], count: int, seed: int, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Points (count, 2) around the middles of their classes, and the classes (count,), the lowest
    of which is `first`.
    """
    drawn = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % len(middles)
    return torch.tensor(middles)[labels] + SPREAD * drawn, labels + first


def small_network(seed: int, classes: int = len(KNOWN), width: int = 32) -> nn.Sequential:
    """A network from the plane to logits, with two hidden layers and BatchNorm in each."""
    with seeded(seed):
        return nn.Sequential(*_hidden(2, width), *_hidden(width, width), nn.Linear(width, classes))


def _hidden(inputs: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()


def grid(side: int = 100) -> Tensor:
    """Points (side * side, 2) all over the plane, row by row from below."""
    line = torch.linspace(-EDGE, EDGE, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)
