"""A toy in the plane: two classes that share their mean, a ring and the disc inside of it."""

import math

import torch
from torch import Tensor

DISC, RING = 0, 1
NOISE = 0.08  # of the ring's radius, as a standard deviation


def ring_and_disc(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (count, 2) of a disc of radius 0.4 (label 0) and of a ring of radius 1 (label 1).

    Args:
        count: of points, half of each class.
        seed: of all that is drawn.

    Returns:
        The points and their labels, int64 (count,).
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    inside = 0.4 * torch.rand(count, generator=generator).sqrt()
    around = 1 + NOISE * torch.randn(count, generator=generator)
    radius = torch.where(labels == RING, around, inside)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1), labels


def heap(classes: int, each: int, seed: int) -> Tensor:
    """Points (classes, each, 2) in one small heap, to the upper right of the disc."""
    drawn = torch.randn(classes, each, 2, generator=torch.Generator().manual_seed(seed))
    return torch.tensor([0.7, 0.6]) + 0.12 * drawn
