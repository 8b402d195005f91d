r"""Targets from a teacher or an ensemble of teachers, and the losses that ask a student to match.

Stanton et al., Does Knowledge Distillation Really Work?, NeurIPS 2021, section 3. With the logits
z_k of m teachers,

    z_T = log( 1/m sum_k softmax(z_k) )                                   (1)
    L_KD = -tau^2 sum_j softmax_j(z_T / tau) log softmax_j(z_S / tau)     (2)
    L = alpha L_CE + (1 - alpha) L_KD                                     (3)

Here alpha weighs the *labels*; elsewhere in the literature it weighs the teacher. The temperature
is applied after the members have been reduced to one distribution. L_KD is a cross-entropy: its
smallest value is tau^2 times the entropy of the target, not 0.

The main text uses `soft_cross_entropy`; the other losses are those of the published code, with the
factors that they have there, and `logit_loss`, the limit of high temperature. All are summed over
classes and averaged over the batch unless they say otherwise, and computed in float32 or wider.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import (
    check_finite,
    check_pair,
    ensemble_log_probs,
    kl_divergence,
    to_float32,
)

Temperature: TypeAlias = float | Tensor


def tempered(logits: Tensor, temperature: Temperature) -> Tensor:
    """Log-probabilities (batch, classes) of logits at a temperature, one for all or one a row."""
    return F.log_softmax(to_float32(logits) / temperature, dim=1)


def soft_cross_entropy(
    *, student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """Cross-entropy of the student's with the teacher's tempered probabilities, times tau^2:
    equation (2).

    Args:
        student_logits, teacher_logits: (batch, classes).
        temperature: above 0; one number, or one a row as (batch, 1).

    Returns:
        A scalar in nats; at least tau^2 times the entropy of the teacher's tempered probabilities.

    Raises:
        ValueError: shapes differ, logits are not numbers, a temperature is not above 0 or has
            another shape.
    """
    tau = _checked(student_logits, teacher_logits, temperature)
    target = tempered(teacher_logits, temperature).exp()
    rows = -(target * tempered(student_logits, temperature)).sum(dim=1, keepdim=True)
    return (tau**2 * rows).mean()


def divergence(
    *, student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """KL(teacher || student) of the tempered probabilities, *without* tau^2."""
    _checked(student_logits, teacher_logits, temperature)
    return kl_divergence(student_logits, teacher_logits, temperature)


def symmetric_divergence(
    *, student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """KL(teacher || student) + KL(student || teacher), without tau^2."""
    _checked(student_logits, teacher_logits, temperature)
    return kl_divergence(student_logits, teacher_logits, temperature) + kl_divergence(
        teacher_logits, student_logits, temperature
    )


def member_divergence(
    *, student_logits: Tensor, member_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """Mean over the members of an ensemble of `symmetric_divergence` from each.

    Args:
        member_logits: (batch, members, classes).
    """
    ensemble_log_probs(member_logits)
    parts = [
        symmetric_divergence(
            student_logits=student_logits, teacher_logits=one, temperature=temperature
        )
        for one in member_logits.unbind(1)
    ]
    return torch.stack(parts).mean()


def reverse_cross_entropy(
    *, student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """As `soft_cross_entropy` with the roles exchanged: the student's probabilities are the
    weights.
    """
    return soft_cross_entropy(
        student_logits=teacher_logits, teacher_logits=student_logits, temperature=temperature
    )


def hard_cross_entropy(
    *, student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """Cross-entropy of the student's tempered probabilities with the teacher's first choice, times
    tau^2.

    Raises:
        ValueError: as `soft_cross_entropy`, or the teacher's logits are not finite.
    """
    tau = _checked(student_logits, teacher_logits, temperature)
    check_finite("teacher logits", teacher_logits)
    chosen = teacher_logits.argmax(dim=1, keepdim=True)
    return (tau**2 * -tempered(student_logits, temperature).gather(1, chosen)).mean()


def mixed_cross_entropy(
    *,
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Temperature = 1.0,
    hard: float = 0.5,
) -> Tensor:
    """`hard` parts of `hard_cross_entropy` and 1 - `hard` parts of `soft_cross_entropy`.

    Raises:
        ValueError: as `soft_cross_entropy`, or `hard` is outside [0, 1].
    """
    checks.between("hard", hard, 0, 1)
    choice, soft = (
        loss(student_logits=student_logits, teacher_logits=teacher_logits, temperature=temperature)
        for loss in (hard_cross_entropy, soft_cross_entropy)
    )
    return hard * choice + (1 - hard) * soft


def annealed(hard: float, epoch: int, epochs: int) -> float:
    """Share of the hard loss in `epoch` of `epochs`: it falls linearly from `hard` to 0.

    Raises:
        ValueError: `hard` is outside [0, 1], or the epoch outside the training.
    """
    checks.between("hard", hard, 0, 1)
    checks.whole("epochs", epochs, 1)
    return hard * (1 - checks.between("epoch", epoch, 0, epochs) / epochs)


def brier_distance(
    *, student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """Squared difference of the tempered probabilities, mean over the batch *and* the classes."""
    _checked(student_logits, teacher_logits, temperature)
    teacher = tempered(teacher_logits, temperature).exp()
    return (teacher - tempered(student_logits, temperature).exp()).square().mean()


def logit_loss(
    *, student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature = 1.0
) -> Tensor:
    """What tau^2 KL becomes as tau grows: half the squared difference of centred logits, over k.

    Summed over the k classes and averaged over the batch. Its gradient by the student's logits is
    (centred z_S - centred z_T) / k / batch. The temperature only has to be allowed; it cancels.
    """
    _checked(student_logits, teacher_logits, temperature)
    difference = to_float32(student_logits) - to_float32(teacher_logits)
    centred = difference - difference.mean(dim=1, keepdim=True)
    return centred.square().mean(dim=1).mean() / 2


Loss = Callable[..., Tensor]

# Losses of `student_logits` and one teacher's `teacher_logits`, (batch, classes), by name only: a
# swap of the two would go unnoticed.
LOSSES: dict[str, Loss] = {
    "soft": soft_cross_entropy,
    "kl": divergence,
    "symmetric": symmetric_divergence,
    "reverse": reverse_cross_entropy,
    "hard": hard_cross_entropy,
    "mixed": mixed_cross_entropy,
    "brier": brier_distance,
    "logit": logit_loss,
}


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    temperature: Temperature = 4.0,
    loss: str = "soft",
) -> Tensor:
    """Labels and teacher together, equation (3).

    Args:
        student_logits, teacher_logits: (batch, classes).
        labels: of the first rows of the batch; rows after them have none and count only in the
            teacher's term. The label term is the mean over the rows that have labels.
        alpha: weight of the labels, in [0, 1).
        temperature: of the teacher's term.
        loss: name of the teacher's term, among `LOSSES`.

    Raises:
        ValueError: alpha is out of range, or above 0 without labels; labels do not fit the logits;
            the loss is unknown; and as the losses.
    """
    checks.one_of("loss", loss, LOSSES)
    if isinstance(alpha, bool) or not 0 <= alpha < 1:
        raise ValueError(f"alpha must be at least 0 and less than 1; got {alpha!r}")
    soft = LOSSES[loss](
        student_logits=student_logits, teacher_logits=teacher_logits, temperature=temperature
    )
    if alpha == 0:
        return soft
    if labels is None or labels.dim() != 1 or not 1 <= len(labels) <= len(student_logits):
        raise ValueError(
            f"alpha above 0 needs labels for the first of the {len(student_logits)} rows; got "
            f"{'none' if labels is None else tuple(labels.shape)}"
        )
    classes = student_logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"labels must be between 0 and {classes - 1}; "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    known = F.cross_entropy(to_float32(student_logits[: len(labels)]), labels)
    return alpha * known + (1 - alpha) * soft


def _checked(
    student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature
) -> Tensor | float:
    """The temperature, once everything fits."""
    check_pair(student_logits, teacher_logits)
    check_finite("teacher logits", teacher_logits)
    check_finite("student logits", student_logits)
    if not isinstance(temperature, Tensor):
        return checks.above("temperature", temperature, 0)
    rows = len(student_logits)
    if tuple(temperature.shape) != (rows, 1):
        raise ValueError(
            f"temperature must be a number or ({rows}, 1), one a row; "
            f"got {tuple(temperature.shape)}"
        )
    if not bool((temperature > 0).all()):
        raise ValueError(f"temperature must be greater than 0; got {float(temperature.min())}")
    return temperature
