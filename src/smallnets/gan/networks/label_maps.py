"""Label maps as GauGAN reads them: one channel a class, and one for the edges of instances."""

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks


def instance_edges(instances: Tensor) -> Tensor:
    """Where an instance ends: pixels that differ from one of their four neighbours.

    Args:
        instances: (batch, 1, height, width) whole numbers.

    Returns:
        float32 of the same shape, 1 on both sides of an edge and 0 elsewhere.

    Raises:
        ValueError: another shape.
    """
    if instances.dim() != 4 or instances.shape[1] != 1:
        raise ValueError(
            f"instance maps must be (batch, 1, height, width); got {tuple(instances.shape)}"
        )
    edges = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[..., 1:] != instances[..., :-1]
    along = instances[..., 1:, :] != instances[..., :-1, :]
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    edges[..., 1:, :] |= along
    edges[..., :-1, :] |= along
    return edges.float()


def one_hot_labels(
    labels: Tensor,
    classes: int,
    instances: Tensor | None = None,
    dont_care: int | None = None,
) -> Tensor:
    """Class numbers -> one channel a class.

    Args:
        labels: (batch, height, width), or with one channel, whole numbers below `classes`.
        classes: how many there are.
        instances: (batch, 1, height, width), whose edges make a last channel.
        dont_care: a number, such as 255, that stands for no class and gets a channel of its own
            behind the classes (COCO-Stuff).

    Returns:
        float32 (batch, classes and further channels, height, width).

    Raises:
        ValueError: other shapes, or a number that stands for nothing.
    """
    checks.whole("classes", classes, 1)
    if labels.dim() == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 3 or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"labels must be whole numbers (batch, height, width); "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    numbers, allowed = labels.long(), f"from 0 to {classes - 1}"
    strange = (numbers < 0) | (numbers >= classes)
    if dont_care is not None:
        unlabelled = numbers == dont_care
        strange &= ~unlabelled
        numbers, allowed = torch.where(unlabelled, classes, numbers), f"{allowed} or {dont_care}"
    if strange.any():
        raise ValueError(f"labels must be {allowed}; got {int(labels[strange][0])}")
    channels = F.one_hot(numbers, classes + (dont_care is not None)).movedim(-1, 1).float()
    if instances is None:
        return channels
    if instances.shape != (len(labels), 1, *labels.shape[1:]):
        raise ValueError(
            f"instance maps must be {(len(labels), 1, *labels.shape[1:])}; "
            f"got {tuple(instances.shape)}"
        )
    return torch.cat([channels, instance_edges(instances)], dim=1)
