"""Whether a classifier is as sure as it is right: bins of confidence, and the error over them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smallnets import checks
from smallnets.measure.quality import accuracy


@dataclass(frozen=True, eq=False)
class CalibrationBins:
    """Sums over confidence bins, closed on the right: (i / bins, (i + 1) / bins].

    They add up over batches; averaging the errors of batches would not.

    Attributes:
        count, correct, confidence: examples, right answers, summed confidences of every bin,
            float64 (bins,).
    """

    count: Tensor
    correct: Tensor
    confidence: Tensor

    def __add__(self, other: "CalibrationBins") -> "CalibrationBins":
        if len(self.count) != len(other.count):
            raise ValueError(
                f"bins that are added must be equally many; got {len(self.count)} "
                f"and {len(other.count)}"
            )
        return CalibrationBins(
            self.count + other.count,
            self.correct + other.correct,
            self.confidence + other.confidence,
        )

    def error(self) -> float:
        """Expected calibration error: |accuracy - mean confidence| of a bin, mean over examples.

        Raises:
            ValueError: the bins hold no examples.
        """
        checks.above("number of examples in the bins", self.count.sum().item(), 0)
        return ((self.correct - self.confidence).abs().sum() / self.count.sum()).item()

    def diagram(self) -> tuple[Tensor, Tensor]:
        """Mean confidence and accuracy of the bins that hold examples: a reliability diagram."""
        filled = self.count > 0
        count = self.count[filled]
        return self.confidence[filled] / count, self.correct[filled] / count


def calibration_bins(logits: Tensor, labels: Tensor, bins: int = 10) -> CalibrationBins:
    """Sort examples by their confidence, the largest softmax probability.

    Args:
        logits: (n, classes).
        labels: (n,) whole numbers.
        bins: how many equal intervals of [0, 1].

    Raises:
        ValueError: shapes or labels do not fit, logits are not finite, or `bins` is below 1.
    """
    accuracy(logits, labels)  # checks both
    edges = torch.linspace(0, 1, checks.whole("bins", bins, 1) + 1, dtype=torch.float64)[1:-1]
    confidence, predicted = logits.detach().double().cpu().softmax(1).max(1)
    where = torch.bucketize(confidence, edges)
    right = (predicted == labels.cpu()).double()
    zeros = torch.zeros(bins, dtype=torch.float64)
    return CalibrationBins(
        zeros.index_add(0, where, torch.ones_like(right)),
        zeros.index_add(0, where, right),
        zeros.index_add(0, where, confidence),
    )


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Expected calibration error (Guo et al., ICML 2017, equation 3), 0 to 1.

    Examples are sorted by confidence into `bins` equal intervals closed on the right; the error is
    the mean over examples of `|accuracy - mean confidence|` of their bin.

    Args:
        logits: (n, classes), at least two classes.
        labels: (n,) whole numbers.
        bins: number of bins.

    Raises:
        ValueError: as `calibration_bins`, or fewer than two classes.
    """
    found = calibration_bins(logits, labels, bins)
    checks.whole("number of classes", logits.shape[1], 2)
    return found.error()
