"""The loss of every width: with the labels, or with a higher width as teacher.

"hard", "soft" and "recursive" are those of Any-Precision networks (Yu et al., AAAI 2021). Both
distillation losses have temperature 1, no factor T^2 and no part with labels; teachers are
detached, and the highest width always learns from the labels.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from smallnets import checks

MODES = ("hard", "soft", "recursive")


def width_loss(logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> Tensor:
    """Cross-entropy with the labels, or with a teacher's probabilities; mean over the batch.

    Args:
        logits: (batch, classes) of one width.
        labels: (batch,) from 0 to classes - 1.
        teacher: (batch, classes) probabilities, detached.
    """
    if teacher is None:
        return F.cross_entropy(logits, labels)
    return -(teacher * F.log_softmax(logits, 1)).sum(1).mean()


def next_teacher(logits: Tensor, teacher: Tensor | None, mode: str) -> Tensor | None:
    """The teacher of the next lower width, when a width has spoken: none for "hard", the highest
    width for "soft", the one just above for "recursive".
    """
    if mode == "hard" or (mode == "soft" and teacher is not None):
        return teacher
    return logits.detach().softmax(1)


def multi_width_loss(
    logits: Mapping[int, Tensor], labels: Tensor, mode: str = "hard"
) -> dict[int, Tensor]:
    """Width -> its loss, from high to low.

    Args:
        logits: width -> (batch, classes).
        labels: (batch,).
        mode: "hard", "soft" or "recursive".

    Raises:
        ValueError: an unknown mode, a teacher without a student, or labels out of range.
    """
    check_mode(mode, len(logits))
    classes = next(iter(logits.values())).shape[1]
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError(
            f"labels must be between 0 and {classes - 1}; "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    teacher: Tensor | None = None
    found = {}
    for bits in sorted(logits, reverse=True):
        found[bits] = width_loss(logits[bits], labels, teacher)
        teacher = next_teacher(logits[bits], teacher, mode)
    return found


def check_mode(mode: str, widths: int) -> None:
    """Raises ValueError for an unknown mode, or one that needs two widths with only one."""
    checks.one_of("mode", mode, MODES)
    if widths < 2 and mode != "hard":
        raise ValueError(f"mode must be hard with a single width; got {mode!r}")
