"""The losses that every later method is compared with: soft targets and attention transfer."""

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import check_pair, kl_divergence, to_float32


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Soft-target loss of Hinton et al. (2015): :math:`T^2\,\mathrm{KL}(p_T^\tau \| p_S^\tau)`.

    Summed over classes, mean over the batch; the factor T^2 keeps the size of the gradient when the
    temperature T changes.

    Args:
        student_logits, teacher_logits: (batch, classes).
        temperature: both softmaxes are taken of logits / temperature.

    Returns:
        A scalar in nats, float32 or wider.

    Raises:
        ValueError: shapes differ or are not (batch, classes), or the temperature is not above 0.
    """
    checks.above("temperature", temperature, 0)
    check_pair(student_logits, teacher_logits)
    return temperature**2 * kl_divergence(student_logits, teacher_logits.detach(), temperature)


def attention_map(features: Tensor, p: float = 2.0) -> Tensor:
    """Where a layer looks: the mean over channels of |activation|^p, flattened and scaled to length
    1.

    Zagoruyko & Komodakis (2017), as in their published code.

    Args:
        features: (batch, channels, height, width).
        p: exponent, above 0.

    Returns:
        (batch, height * width), rows of Euclidean length 1 (or 0 for an all-zero map).

    Raises:
        ValueError: the features are not four-dimensional, or p is not above 0.
    """
    checks.above("p", p, 0)
    if features.dim() != 4 or features.numel() == 0 or not features.is_floating_point():
        raise ValueError(
            "attention maps need floating-point (batch, channels, height, width), not empty; "
            f"got {features.dtype} {tuple(features.shape)}"
        )
    activations = to_float32(features)
    # The sum of squares in one pass over the features; a factor is lost in the scaling anyway.
    energy = (
        torch.linalg.vector_norm(activations, dim=1).square()
        if p == 2
        else activations.abs().pow(p).mean(dim=1)
    )
    return F.normalize(energy.flatten(1), dim=1, eps=1e-12)


def at_loss(student: Tensor, teacher: Tensor, p: float = 2.0) -> Tensor:
    """Attention-transfer loss of one layer pair: mean over batch and positions of the squared map
    difference.

    This is the published code's form (all published weights, such as beta = 1000, belong to it);
    the paper's text has the norm unsquared. Where resolutions differ, the larger feature map is
    average-pooled to the smaller.

    Args:
        student, teacher: (batch, channels, height, width); channels and resolution may differ.
        p: exponent of `attention_map`.

    Raises:
        ValueError: as `attention_map`, or the batch sizes differ.
    """
    size, teacher = common_size(student, teacher), teacher.detach()
    return map_distance(
        attention_map(pooled(student, size), p), attention_map(pooled(teacher, size), p)
    )


def common_size(student: Tensor, teacher: Tensor) -> tuple[int, int] | None:
    """The smaller height and width of two feature maps; None where they do not differ."""
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[2:] == teacher.shape[2:]:
        return None
    height, width = (min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return height, width


def pooled(features: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Features (batch, channels, height, width), average-pooled to a size unless it is None."""
    return features if size is None else F.adaptive_avg_pool2d(to_float32(features), size)


def map_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of attention maps (batch, positions).

    Raises:
        ValueError: their shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must share the batch; "
            f"got {len(student)} and {len(teacher)} images"
        )
    return (student - teacher).square().mean()
