"""The loss in the plane through three sets of weights: teacher, a student's start, and its end.

With the teacher as the origin, e1 points to the start and e2 is what is left of the direction to
the end, both of length one. The official code has no such picture; the paper's figure is the model.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallnets.distill.fidelity.losses import soft_cross_entropy, tempered
from smallnets.distill.fidelity.start import between, flat_weights

ROUNDING = 100  # a rest shorter than this many roundings of the vector is none


class Plane(NamedTuple):
    """Axes (weights,) of a plane, and the three points' coordinates (3, 2) in it."""

    e1: Tensor
    e2: Tensor
    coordinates: Tensor


def plane_basis(teacher: Tensor, start: Tensor, end: Tensor) -> Plane:
    """The plane through three weight vectors (weights,), the teacher's being the origin.

    Raises:
        ValueError: shapes differ, or the points lie on one line.
    """
    if teacher.dim() != 1 or not teacher.shape == start.shape == end.shape:
        raise ValueError(
            "teacher, start and end must be vectors of one length; "
            f"got {tuple(teacher.shape)}, {tuple(start.shape)} and {tuple(end.shape)}"
        )
    first, second = start - teacher, end - teacher
    length = first.norm()
    e1 = first / length
    rest = second - (second @ e1) * e1
    least = ROUNDING * torch.finfo(second.dtype).eps * second.norm()
    if not length > 0 or not rest.norm() > least:
        raise ValueError("teacher, start and end must span a plane; they lie on one line")
    rest = rest - (rest @ e1) * e1  # once more, for the last digits
    e2 = rest / rest.norm()
    zero = torch.zeros((), dtype=teacher.dtype)
    points = [zero, zero, length, zero, second @ e1, second @ e2]
    return Plane(e1, e2, torch.stack(points).view(3, 2))


class Surface(NamedTuple):
    """Losses (len(y), len(x)) at the points of a grid, and where the three networks are on it."""

    x: Tensor
    y: Tensor
    loss: Tensor
    coordinates: Tensor


def loss_surface(
    teacher: nn.Module,
    start: nn.Module,
    end: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    points: int = 15,
    margin: float = 0.25,
) -> Surface:
    """Evaluate a loss on a grid in the plane of three networks of one architecture.

    Args:
        teacher, start, end: the three; they stay as they are.
        loss: of a network with the weights of a grid point, in evaluation mode. Networks whose
            normalisation keeps statistics need them refreshed there.
        points: of each side of the grid.
        margin: how far the grid goes beyond the three points, as a share of their extent.
    """
    plane = plane_basis(*map(flat_weights, (teacher, start, end)))
    low, high = plane.coordinates.min(dim=0).values, plane.coordinates.max(dim=0).values
    rim = margin * (high - low)
    x, y = (
        torch.linspace(float(a), float(b), points)
        for a, b in zip(low - rim, high + rim, strict=True)
    )
    visitor = copy.deepcopy(teacher).eval()
    origin = flat_weights(teacher)

    def at(across: Tensor, up: Tensor) -> float:
        weights = origin + across * plane.e1 + up * plane.e2
        nn.utils.vector_to_parameters(weights, visitor.parameters())
        return float(loss(visitor))

    with torch.no_grad():
        grid = torch.tensor([[at(across, up) for across in x] for up in y])
    return Surface(x, y, grid, plane.coordinates)


def straight_path(
    first: nn.Module, second: nn.Module, loss: Callable[[nn.Module], Tensor], points: int = 11
) -> tuple[Tensor, Tensor]:
    """Losses on the straight line of weights from one network to another.

    Returns:
        Positions (points,) from 0 (`first`) to 1 (`second`), and the losses there (points,).
    """
    positions = torch.linspace(0, 1, points)
    with torch.no_grad():
        losses = [float(loss(between(second, first, float(t)).eval())) for t in positions]
    return positions, torch.tensor(losses)


def distillation_gap(
    teacher: nn.Module, images: Tensor, temperature: float
) -> Callable[[nn.Module], Tensor]:
    """The student's loss on fixed images less its smallest possible value: 0 for the teacher.

    Normalisation uses the statistics of these images, so that a network anywhere in the plane of
    weights has statistics that fit it.

    Args:
        teacher: of the same architecture.
        images: prepared images (n, channels, height, width).
        temperature: of the soft targets.
    """

    def outputs(network: nn.Module) -> Tensor:
        visitor = copy.deepcopy(network).train()
        with torch.no_grad():
            return visitor(images)

    teacher_logits = outputs(teacher)
    log_probs = tempered(teacher_logits, temperature)
    least = temperature**2 * -(log_probs.exp() * log_probs).sum(dim=1).mean()
    return lambda network: (
        soft_cross_entropy(
            student_logits=outputs(network), teacher_logits=teacher_logits, temperature=temperature
        )
        - least
    )
