"""How good a classifier's logits are, against labels and against a teacher's logits.

Every function takes whole sets, returns a Python float, and computes in float64.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets.losses import check_finite, kl_divergence


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of examples, 0 to 1, whose largest logit is the label's.

    Args:
        logits: (n, classes).
        labels: (n,) whole numbers.

    Raises:
        ValueError: if shapes do not match, there are no examples, logits are not finite, or a
            label is outside the classes.
    """
    _check_labels(logits, labels)
    return (logits.argmax(1) == labels).double().mean().item()


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of examples, 0 to 1, for which two networks predict the same class.

    For accuracies A and B it lies between `max(0, A + B - 1)` and `1 - |A - B|`.

    Args:
        a: logits (n, classes) of one network.
        b: logits (n, classes) of the other.

    Raises:
        ValueError: if shapes differ, there are no examples, or logits are not finite.
    """
    _check_pair("a", a, "b", b)
    return (a.argmax(1) == b.argmax(1)).double().mean().item()


def predictive_kl(*, student_logits: Tensor, teacher_logits: Tensor) -> float:
    """KL(teacher || student) in nats at temperature 1: summed over classes, mean over the batch.

    Args:
        student_logits, teacher_logits: (n, classes), by name: a swap would go unnoticed.

    Raises:
        ValueError: if shapes differ, there are no examples, or logits are not finite.
    """
    _check_pair("student_logits", student_logits, "teacher_logits", teacher_logits)
    return kl_divergence(student_logits.double(), teacher_logits.double()).item()


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean over examples of -log softmax(logits)[label], in nats.

    Args:
        logits: (n, classes).
        labels: (n,) whole numbers.

    Raises:
        ValueError: if shapes do not match, there are no examples, logits are not finite, or a
            label is outside the classes.
    """
    _check_labels(logits, labels)
    return F.cross_entropy(logits.double(), labels.long()).item()


def _check_pair(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape or a.numel() == 0:
        raise ValueError(
            f"{name_a} and {name_b} must have one shape (n, classes) with n at least 1; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    check_finite(name_a, a)
    check_finite(name_b, b)


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.numel() == 0:
        raise ValueError(
            "logits and labels must have shapes (n, classes) and (n,) with n at least 1; "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    check_finite("logits", logits)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers; got {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(f"labels must be between 0 and {logits.shape[1] - 1}; got {low} to {high}")
