"""A toy in the plane, in which two networks can be laid over each other and compared by eye."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from smallnets.distill.fidelity.losses import soft_cross_entropy
from smallnets.training import seeded

CLASSES = 3
EDGE = 1.25  # the plane reaches from -EDGE to EDGE


def spirals(count: int, seed: int, wrong: float = 0.0) -> tuple[Tensor, Tensor]:
    """Points (count, 2) on three arms of a spiral, and which arm each is on (count,).

    Args:
        count: of points.
        seed: of all that is drawn.
        wrong: share of points that get the label of the next arm.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    radius = 0.15 + 0.95 * torch.rand(count, generator=generator)
    angle = 2 * math.pi * labels / CLASSES + 3.2 * radius
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    points = points + 0.06 * torch.randn(count, 2, generator=generator)
    mistaken = torch.rand(count, generator=generator) < wrong
    return points, torch.where(mistaken, (labels + 1) % CLASSES, labels)


def follow(
    network: nn.Module, points: Tensor, logits: Tensor, steps: int = 600, rate: float = 0.02
) -> nn.Module:
    """Train a network in place to answer points (n, 2) as a teacher's logits (n, 3) do."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for _ in range(steps):
        loss = soft_cross_entropy(student_logits=network(points), teacher_logits=logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def small_network(seed: int, width: int = 10) -> nn.Sequential:
    """A network from the plane to three logits, with two hidden layers."""
    with seeded(seed):
        sizes = (2, width, width, CLASSES)
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def grid(side: int = 120) -> Tensor:
    """Points (side * side, 2) all over the plane, row by row from below."""
    line = torch.linspace(-EDGE, EDGE, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)
