"""Distances between what two networks say about the same images.

Function matching minimises

    L = T^2 / b  sum_i KL(p_teacher,i || p_student,i),   p = softmax(z / T)      (2)

and nothing else: no label occurs in it. All functions here give one number an image; take the mean
over the batch, never over the classes. They compute in float32 or wider.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import check_finite, check_pair, kl_divergence, to_float32

DISTANCES = ("kl", "hard", "l2", "euclidean", "logsoftmax_euclidean")


def kl_distance(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of every image, summed over classes: equation (2) before its mean.

    The gradient of the batch mean with respect to the student's logits is T / b (p_student -
    p_teacher), so its size does not depend on T when the two are close.

    Args:
        student_logits, teacher_logits: (batch, classes).
        temperature: both are divided by it, above 0.

    Returns:
        (batch,) in nats, at least 0; 0 if and only if the logits differ by a constant.

    Raises:
        ValueError: shapes differ or are not (batch, classes), whole numbers, or a temperature not
            above 0.
    """
    return logit_distance(student_logits, teacher_logits, "kl", temperature=temperature)


def logit_distance(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: str = "kl",
    *,
    temperature: float = 1.0,
    smoothing: float = 0.0,
) -> Tensor:
    """One of several distances, for every image.

    Args:
        student_logits, teacher_logits: (batch, classes).
        kind: "kl" is `kl_distance`. "hard" is KL from the teacher's largest class, whose label is
            smoothed to 1 - `smoothing` with the rest spread evenly over the *other* classes. "l2"
            is the squared Euclidean distance of the logits, "euclidean" its root, and
            "logsoftmax_euclidean" that root for log-probabilities (the last four know no
            temperature).
        temperature: of "kl".
        smoothing: of "hard", in [0, 1].

    Returns:
        (batch,).

    Raises:
        ValueError: as `kl_distance`, an unknown kind or smoothing, or a teacher for "hard" whose
            logits are not finite.
    """
    checks.one_of("kind", kind, DISTANCES)
    checks.above("temperature", temperature, 0)
    checks.between("temperature", temperature, 0, 1e6)
    checks.between("smoothing", smoothing, 0, 1)
    check_pair(student_logits, teacher_logits)
    student, teacher = to_float32(student_logits), to_float32(teacher_logits)
    if kind == "kl":
        return temperature**2 * kl_divergence(student, teacher, temperature, reduction="none")
    if kind == "hard":
        check_finite("teacher logits", teacher)
        rest = smoothing / max(teacher.shape[1] - 1, 1)
        target = torch.full_like(teacher, rest)
        target.scatter_(1, teacher.argmax(dim=1, keepdim=True), 1 - smoothing)
        return F.kl_div(F.log_softmax(student, dim=1), target, reduction="none").sum(dim=1)
    if kind == "logsoftmax_euclidean":
        student, teacher = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    squares = (student - teacher).square().sum(dim=1)
    return squares if kind == "l2" else (squares + 1e-12).sqrt()


def ensemble_distance(
    student_logits: Tensor,
    teacher_logits: Sequence[Tensor],
    kind: str = "kl",
    *,
    temperature: float = 1.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Sum over teachers of the distance to each, for every image.

    For "kl" the gradient is K times that of the distance to the teachers' mean *probability*; the
    mean of their logits is another function.

    Args: as `logit_distance`, with a sequence of K teachers' logits.

    Raises:
        ValueError: as `logit_distance`, or no teacher.
    """
    checks.at_least("number of teachers", len(teacher_logits), 1)
    each = [
        logit_distance(student_logits, one, kind, temperature=temperature, smoothing=smoothing)
        for one in teacher_logits
    ]
    return torch.stack(each).sum(dim=0)


def agreement(student_logits: Tensor, teacher_logits: Tensor, k: int = 1) -> Tensor:
    """Whether the teacher's first class is among the student's first k, bool (batch,).

    Raises:
        ValueError: shapes do not fit, logits are not finite, or k is not between 1 and the number
            of classes.
    """
    check_pair(student_logits, teacher_logits)
    checks.between("k", checks.whole("k", k, 1), 1, student_logits.shape[1])
    check_finite("student logits", student_logits)
    check_finite("teacher logits", teacher_logits)
    first = teacher_logits.argmax(dim=1, keepdim=True)
    # Of equal logits the first counts, as in `argmax`.
    ranked = student_logits.argsort(dim=1, descending=True, stable=True)
    return (ranked[:, :k] == first).any(dim=1)
