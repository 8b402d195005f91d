"""How good a classifier's logits are, against labels and against a teacher's logits.

Every function takes whole sets, returns a Python float, and computes in float64.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets.checks import whole


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of examples, 0 to 1, whose largest logit is the label's.

    Args:
        logits: (n, classes).
        labels: (n,) whole numbers.

    Raises:
        ValueError: if shapes do not match, there are no examples, or a label is outside the
            classes.
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
        ValueError: if shapes differ or there are no examples.
    """
    _check_pair("a", a, "b", b)
    return (a.argmax(1) == b.argmax(1)).double().mean().item()


def predictive_kl(teacher_logits: Tensor, student_logits: Tensor) -> float:
    """KL(teacher || student) in nats at temperature 1: summed over classes, mean over the batch.

    Args:
        teacher_logits: (n, classes).
        student_logits: (n, classes).

    Raises:
        ValueError: if shapes differ or there are no examples.
    """
    _check_pair("teacher_logits", teacher_logits, "student_logits", student_logits)
    teacher = F.log_softmax(teacher_logits.double(), 1)
    student = F.log_softmax(student_logits.double(), 1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True).item()


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean over examples of -log softmax(logits)[label], in nats.

    Args:
        logits: (n, classes).
        labels: (n,) whole numbers.

    Raises:
        ValueError: if shapes do not match, there are no examples, or a label is outside the
            classes.
    """
    _check_labels(logits, labels)
    return F.cross_entropy(logits.double(), labels.long()).item()


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Expected calibration error (Guo et al., ICML 2017, equation 3), 0 to 1.

    Examples are sorted by confidence, the largest softmax probability, into `bins` equal intervals
    closed on the right; the error is the mean over examples of `|accuracy - mean confidence|` of
    their bin.

    Args:
        logits: (n, classes), at least two classes.
        labels: (n,) whole numbers.
        bins: number of bins.

    Raises:
        ValueError: if shapes do not match, there are no examples or fewer than two classes, a label
            is outside the classes, or `bins` is below 1.
    """
    _check_labels(logits, labels)
    whole("number of classes", logits.shape[1], 2)
    edges = torch.linspace(0, 1, whole("bins", bins, 1) + 1, dtype=torch.float64)[1:-1]
    confidence, predicted = logits.double().softmax(1).max(1)
    bin_index = torch.bucketize(confidence, edges.to(logits.device))  # (n,)
    excess = (predicted == labels).double() - confidence
    # A bin's share of the examples times its |mean excess| is its |summed excess| over n.
    summed = excess.new_zeros(bins).index_add(0, bin_index, excess)  # (bins,)
    return (summed.abs().sum() / len(logits)).item()


def _check_pair(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape or a.numel() == 0:
        raise ValueError(
            f"{name_a} and {name_b} must have one shape (n, classes) with n at least 1; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.numel() == 0:
        raise ValueError(
            "logits and labels must have shapes (n, classes) and (n,) with n at least 1; "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers; got {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(f"labels must be between 0 and {logits.shape[1] - 1}; got {low} to {high}")
