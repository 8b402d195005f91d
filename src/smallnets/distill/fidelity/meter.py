"""Fidelity and quality of a student, gathered batch by batch.

Fidelity is how well a student copies its teacher: agreement (the share of equal first choices) and
the predictive KL from teacher to student at temperature 1. Quality is how well it does on labels:
accuracy, negative log-likelihood, Brier score, calibration. The paper's point is to measure both.
"""

from typing import Self

import torch
from torch import Tensor

from smallnets import checks, measure
from smallnets.losses import check_finite
from smallnets.measure import CalibrationBins, calibration_bins


def agreement_bounds(accuracy_a: float, accuracy_b: float) -> tuple[float, float]:
    """Least and greatest agreement that two accuracies (shares of 1) allow.

    At least max(0, a + b - 1), for both are right somewhere in common; at most 1 - |a - b|, for
    where only one is right they differ.

    Raises:
        ValueError: an accuracy is outside [0, 1].
    """
    for accuracy in (accuracy_a, accuracy_b):
        checks.between("accuracy", accuracy, 0, 1)
    return max(0.0, accuracy_a + accuracy_b - 1), 1 - abs(accuracy_a - accuracy_b)


def overlap(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """How two sets of answers meet, as shares of the examples that add up to 1.

    Args:
        student_logits, teacher_logits: (n, classes).
        labels: (n,) whole numbers.

    Returns:
        "both right", "the same mistake", "only the teacher right", "only the student right" and
        "different mistakes". The first two are the agreement.

    Raises:
        ValueError: as `measure.accuracy`.
    """
    for logits in (teacher_logits, student_logits):
        measure.accuracy(logits, labels)  # checks shapes and labels
    teacher, student = teacher_logits.argmax(1), student_logits.argmax(1)
    same, taught, learnt = teacher == student, teacher == labels, student == labels
    cases = {
        "both right": taught & learnt,
        "the same mistake": same & ~taught,
        "only the teacher right": taught & ~learnt,
        "only the student right": learnt & ~taught,
        "different mistakes": ~(same | taught | learnt),
    }
    return {name: case.double().mean().item() for name, case in cases.items()}


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """Squared distance of the probabilities from the one-hot label: summed over classes, mean over
    examples; 0 to 2.

    Raises:
        ValueError: as `measure.accuracy`.
    """
    measure.accuracy(logits, labels)
    target = torch.nn.functional.one_hot(labels.long(), logits.shape[1]).double()
    return (logits.double().softmax(1) - target).square().sum(1).mean().item()


class FidelityMeter:
    """Every measure of a student against its teacher, over as many batches as there are.

    Args:
        bins: of the calibration.
    """

    def __init__(self, bins: int = 10) -> None:
        self.bins = checks.whole("bins", bins, 1)
        self.examples = 0
        self.labelled = 0
        self.sums: dict[str, float] = {}
        self.calibration: CalibrationBins | None = None

    def update(
        self, *, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None
    ) -> Self:
        """Take in a batch: logits (n, classes) of both, and labels (n,) where there are any.

        Raises:
            ValueError: shapes or labels do not fit, or logits are not finite.
        """
        for name, logits in (("teacher", teacher_logits), ("student", student_logits)):
            check_finite(f"{name} logits", logits)
        count = len(student_logits)
        parts = {
            "agreement": measure.agreement(teacher_logits, student_logits),
            "kl": measure.predictive_kl(
                student_logits=student_logits, teacher_logits=teacher_logits
            ),
        }
        self.examples += count
        if labels is not None:
            self.labelled += count
            parts |= {
                "accuracy": measure.accuracy(student_logits, labels),
                "nll": measure.negative_log_likelihood(student_logits, labels),
                "brier": brier_score(student_logits, labels),
                "teacher accuracy": measure.accuracy(teacher_logits, labels),
            }
            bins = calibration_bins(student_logits, labels, self.bins)
            self.calibration = bins if self.calibration is None else self.calibration + bins
        for name, mean in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + count * mean
        return self

    def compute(self) -> dict[str, float]:
        """Means over all examples: "agreement" and "kl", and with labels "accuracy", "nll",
        "brier", "teacher accuracy" and "ece".

        Raises:
            ValueError: nothing was taken in.
        """
        checks.at_least("number of examples measured", self.examples, 1)
        fidelity = ("agreement", "kl")
        result = {
            name: total / (self.examples if name in fidelity else self.labelled)
            for name, total in self.sums.items()
        }
        if self.calibration is not None:
            result["ece"] = self.calibration.error()
        return result
