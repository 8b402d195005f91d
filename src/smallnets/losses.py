"""Distances between outputs, which several rooms need."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def to_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    reduction: str = "mean",
) -> Tensor:
    """KL(teacher || student) of the tempered probabilities in nats, summed over the classes.

    There is no factor T^2. Float64 stays float64; anything narrower is computed in float32.

    Args:
        student_logits, teacher_logits: (batch, classes).
        temperature: by which both are divided; one number, or one a row as (batch, 1).
        reduction: "mean" or "sum" over the batch, or "none".

    Returns:
        A scalar, or (batch,).
    """
    student = F.log_softmax(to_float32(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(to_float32(teacher_logits) / temperature, dim=1)
    kind = {"mean": "batchmean"}.get(reduction, reduction)
    found = F.kl_div(student, teacher, reduction=kind, log_target=True)
    return found.sum(dim=1) if reduction == "none" else found


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the predicted probabilities, (batch,)."""
    log_probabilities = F.log_softmax(to_float32(logits), dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


def ensemble_log_probs(logits: Tensor | Sequence[Tensor]) -> Tensor:
    """One teacher from many: the logarithm of the mean of the members' probabilities.

    Args:
        logits: (batch, members, classes), in this order, or a sequence of (batch, classes), one a
            member.

    Returns:
        (batch, classes), whose exponentials sum to 1.

    Raises:
        ValueError: no members, another number of dimensions, or members of different shapes.
    """
    if not isinstance(logits, Tensor):
        shapes = {tuple(member.shape) for member in logits}
        if len(shapes) != 1:
            raise ValueError(
                "the members of an ensemble must have one shape (batch, classes), and there must "
                f"be one or more; got {sorted(shapes)}"
            )
        logits = torch.stack(list(logits), dim=1)
    if logits.dim() != 3 or logits.numel() == 0:
        raise ValueError(
            f"logits of an ensemble must be (batch, members, classes); got {tuple(logits.shape)}"
        )
    members = to_float32(logits).log_softmax(dim=2)
    count = torch.tensor(float(logits.shape[1]), dtype=members.dtype, device=members.device)
    return members.logsumexp(dim=1) - count.log()


def check_pair(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raise ValueError unless both are floating-point (batch, classes) of one shape, not empty."""
    if (
        student_logits.shape != teacher_logits.shape
        or student_logits.dim() != 2
        or student_logits.numel() == 0
    ):
        raise ValueError(
            "student and teacher logits must both be (batch, classes) and not empty; "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    for logits in (student_logits, teacher_logits):
        if not logits.is_floating_point():
            raise ValueError(f"logits must be floating-point numbers; got {logits.dtype}")


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError unless all numbers are finite: of NaN, `argmax` makes a class."""
    ends = values.aminmax() if values.numel() else ()  # one pass; NaN comes through
    if not all(bool(end.isfinite()) for end in ends):
        raise ValueError(f"{name} must be finite; got NaN or infinity")
