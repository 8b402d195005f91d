"""What the teacher sees in patches, before any training (analysis 2), and where the student fails
(analysis 5).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.losses import check_finite, entropy
from smallnets.measure import predict


@dataclass(frozen=True, eq=False)
class Coverage:
    """How a teacher's answers to n patches spread over the classes; entropies in nats.

    Attributes:
        histogram: int64 (classes,), patches whose first class it is.
        mean_probability: (classes,), E[p].
        mean_entropy: E[H(p)], how unsure the teacher is of one patch.
        entropy_of_mean: H(E[p]), how evenly the patches spread.
    """

    histogram: Tensor
    mean_probability: Tensor
    mean_entropy: float
    entropy_of_mean: float

    @property
    def mutual_information(self) -> float:
        """H(E[p]) - E[H(p)], from 0 (all patches get one answer) to log(classes)."""
        return max(self.entropy_of_mean - self.mean_entropy, 0.0)

    @property
    def classes_hit(self) -> int:
        """Classes that are the first of any patch."""
        return int((self.histogram > 0).sum())

    @property
    def shares(self) -> Tensor:
        """Of the patches in each class, float64 (classes,)."""
        return self.histogram.double() / self.histogram.sum()


def coverage_of_logits(logits: Tensor) -> Coverage:
    """The coverage of answers (n, classes) that are there already.

    Raises:
        ValueError: another shape, no patch, or numbers that are not finite.
    """
    if logits.dim() != 2 or logits.numel() == 0:
        raise ValueError(
            f"logits must be (patches, classes) and not empty; got {tuple(logits.shape)}"
        )
    check_finite("logits", logits)
    wide = logits.double()
    mean = wide.softmax(dim=1).mean(dim=0)
    return Coverage(
        histogram=torch.bincount(wide.argmax(dim=1), minlength=wide.shape[1]),
        mean_probability=mean,
        mean_entropy=float(entropy(wide).mean()),
        entropy_of_mean=float(torch.special.entr(mean).sum()),
    )


def coverage(
    teacher: nn.Module, patches: Tensor, normalise: Callable[[Tensor], Tensor] | None = None
) -> Coverage:
    """What a teacher says of patches.

    Args:
        teacher: left in the mode in which it is.
        patches: uint8 or floating point (n, channels, height, width).
        normalise: as the teacher's data are, such as `Dataset.normalise`.
    """
    return coverage_of_logits(predict(teacher, patches, normalise))


@dataclass(frozen=True, eq=False)
class ClassAccuracies:
    """Real images class by class, beside the patches that the teacher put into that class.

    Attributes:
        accuracy: float64 (classes,); NaN for a class without an image.
        agreement: float64 (classes,), with the teacher, of the images that the teacher calls so;
            NaN where there are none.
        share: float64 (classes,), of the patches.
    """

    accuracy: Tensor
    agreement: Tensor
    share: Tensor


def accuracy_against_coverage(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, found: Coverage
) -> ClassAccuracies:
    """Accuracy and agreement on real images by class, against the class's share of the patches.

    Args:
        student_logits, teacher_logits: (n, classes) of the same real images.
        labels: int64 (n,).
        found: coverage of the patches by the same teacher.

    Raises:
        ValueError: shapes or classes do not fit together.
    """
    classes = len(found.histogram)
    shape = (len(labels), classes)
    if tuple(student_logits.shape) != shape or tuple(teacher_logits.shape) != shape:
        raise ValueError(
            f"logits must be {shape}, as there are {len(labels)} labels and {classes} classes; got "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    checks.between("labels", int(labels.min()), 0, classes - 1)
    checks.between("labels", int(labels.max()), 0, classes - 1)
    student, teacher = student_logits.argmax(dim=1), teacher_logits.argmax(dim=1)
    return ClassAccuracies(
        accuracy=_by_class(student == labels, labels, classes),
        agreement=_by_class(student == teacher, teacher, classes),
        share=found.shares,
    )


def _by_class(right: Tensor, group: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(group, minlength=classes).double()
    return torch.bincount(group, right.double(), minlength=classes) / counts
