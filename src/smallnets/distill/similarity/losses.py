"""The similarity-preserving loss and its diagnostics.

Tung & Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019. With Q (batch, features) the
flattened activations of a layer,

    G~ = Q Q^T,   G[i] = G~[i] / ||G~[i]||_2          (1)
    L_SP = 1/b^2 sum over layer pairs ||G_T - G_S||_F^2   (2)

The row-wise normalisation after the product is the paper's; a version of it with the 1-norm, and
one that divides by the norm of the whole matrix, circulate under the same name and are other
functions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import check_finite, to_float32

NORMALISATIONS = ("row", "frobenius", "cosine", "none")
SMALLEST_NORM = 1e-12


def similarity_matrix(features: Tensor, normalise: str = "row") -> Tensor:
    """Pairwise similarities of a batch, equation (1).

    Args:
        features: (batch, ...), everything after the batch is flattened. Neither the order of
            positions nor an orthogonal map of them changes the result.
        normalise: "row" is the paper's. For comparison: "frobenius" divides by the norm of the
            whole matrix, "cosine" scales the rows of Q before the product, "none" leaves the inner
            products as they are.

    Returns:
        (batch, batch), float32 or wider. Rows of a "row"-normalised matrix have length 1; a row of
        zeros stays.

    Raises:
        ValueError: no batch, an empty one, whole numbers, or an unknown normalisation.
    """
    checks.one_of("normalise", normalise, NORMALISATIONS)
    rows = flat(features)
    with torch.autocast(rows.device.type, enabled=False):
        if normalise == "cosine":
            rows = F.normalize(rows, dim=1, eps=SMALLEST_NORM)
        gram = rows @ rows.T
    if normalise == "row":
        return F.normalize(gram, dim=1, eps=SMALLEST_NORM)
    if normalise == "frobenius":
        return gram / gram.norm().clamp_min(SMALLEST_NORM)
    return gram


def sp_loss(
    student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor], normalise: str = "row"
) -> Tensor:
    """Similarity-preserving loss, equation (2): mean over the b*b entries, summed over layer pairs.

    Args:
        student, teacher: features (batch, ...) of one layer each, or equally long sequences of
            them. Only the batch must agree. No gradient goes to the teacher.
        normalise: see `similarity_matrix`.

    Returns:
        A scalar: at most 4/b a pair for "row", at most 2/b when features are not negative, and 0
            for b = 1.

    Raises:
        ValueError: other numbers of layers, other batch sizes, not a number or infinity in the
            features, or features that `similarity_matrix` refuses.
    """
    students, teachers = ([x] if isinstance(x, Tensor) else list(x) for x in (student, teacher))
    if len(students) != len(teachers) or not students:
        raise ValueError(
            "student and teacher must have equally many layers, at least one; "
            f"got {len(students)} and {len(teachers)}"
        )
    return torch.stack(
        [_pair_loss(s, t, normalise) for s, t in zip(students, teachers, strict=True)]
    ).sum()


def _pair_loss(student: Tensor, teacher: Tensor, normalise: str) -> Tensor:
    if student.shape[:1] != teacher.shape[:1]:
        raise ValueError(
            "student and teacher must share the batch; "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    with torch.no_grad():
        target = similarity_matrix(teacher, normalise)
    if normalise == "row":
        loss = _RowSimilarity.apply(flat(student), target)
    else:
        loss = (similarity_matrix(student, normalise) - target).square().mean()
    if not math.isfinite(loss.item()):
        raise ValueError(
            "features must be finite; got not-a-number or infinity in the student's or teacher's"
        )
    return loss


class _RowSimilarity(torch.autograd.Function):
    """Equation (2) for one pair, with its gradient in closed form.

    With D = G_S - G_T, E[i] = 2/b^2 (D[i] - <D[i], G_S[i]> G_S[i]) / ||G~_S[i]||, the gradient is
    (E + E^T) Q_S: one product where the chain rule, blind to the symmetry of the Gram matrix, makes
    two.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, target: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        with torch.autocast(rows.device.type, enabled=False):
            gram = rows @ rows.T
        norms = gram.norm(dim=1, keepdim=True)
        similarity = gram / norms.clamp_min(SMALLEST_NORM)
        ctx.save_for_backward(rows, target, similarity, norms)
        return (similarity - target).square().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def, override]
        rows, target, similarity, norms = ctx.saved_tensors
        difference = similarity - target
        along = (difference * similarity).sum(dim=1, keepdim=True) * (norms > SMALLEST_NORM)
        scale = 2 * gradient / difference.numel() / norms.clamp_min(SMALLEST_NORM)
        inner = scale * (difference - along * similarity)
        with torch.autocast(rows.device.type, enabled=False):
            return (inner + inner.T) @ rows, None


def flat(features: Tensor) -> Tensor:
    """Features (batch, ...) as rows (batch, features), float32 or wider, without a copy where
    memory allows.

    A channels-last tensor is read in the order in which it lies in memory, since similarities do
    not depend on it.

    Raises:
        ValueError: no batch dimension, an empty batch, or whole numbers.
    """
    if features.dim() < 2 or features.numel() == 0 or not features.is_floating_point():
        raise ValueError(
            "features must be floating-point (batch, ...) and not empty; "
            f"got {features.dtype} {tuple(features.shape)}"
        )
    if features.dim() == 4 and features.is_contiguous(memory_format=torch.channels_last):
        features = features.permute(0, 2, 3, 1)
    return to_float32(features.flatten(1))


def class_blocks(similarity: Tensor, labels: Tensor) -> Tensor:
    """Mean similarity of the images of one class with those of another, none with itself.

    Args:
        similarity: (batch, batch).
        labels: (batch,).

    Returns:
        (classes, classes), of those that occur, in order. A class of one image has 0 with itself.

    Raises:
        ValueError: shapes do not fit, or similarities are not finite.
    """
    _check_similarity(similarity, labels)
    member = (labels[:, None] == labels.unique()[None, :]).to(similarity.dtype)
    other = 1 - torch.eye(len(labels), dtype=similarity.dtype, device=labels.device)
    sums = member.T @ (similarity * other) @ member
    return sums / (member.T @ other @ member).clamp_min(1)


def class_block_contrast(similarity: Tensor, labels: Tensor) -> float:
    """Mean similarity of two different images of one class minus that of two images of two classes.

    Args:
        similarity: (batch, batch).
        labels: (batch,).

    Raises:
        ValueError: shapes do not fit, similarities are not finite, or the batch has no pair of one
            class, or none of two classes.
    """
    _check_similarity(similarity, labels)
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    within, between = similarity[same & ~itself], similarity[~same]
    if not len(within) or not len(between):
        raise ValueError(
            "labels must hold two images of one class and two classes; "
            f"got {len(labels.unique())} classes among {len(labels)} images"
        )
    return (within.mean() - between.mean()).item()


def _check_similarity(similarity: Tensor, labels: Tensor) -> None:
    if similarity.shape != (len(labels), len(labels)):
        raise ValueError(
            f"similarity must be ({len(labels)}, {len(labels)}) for {len(labels)} labels; "
            f"got {tuple(similarity.shape)}"
        )
    check_finite("similarity", similarity)
