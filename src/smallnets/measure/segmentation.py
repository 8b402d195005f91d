"""How well label maps are found again: the confusion of pixels, and the mean intersection over
union.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smallnets import checks

IGNORE = 255


@dataclass(frozen=True, eq=False)
class Segmentation:
    """How many pixels of which class were taken for which.

    Attributes:
        confusion: int64 (classes, classes); rows are labels, columns predictions.
    """

    confusion: Tensor

    @property
    def iou(self) -> Tensor:
        """Intersection over union of every class in percent, float64 (classes,); NaN for a class
        that occurs in neither labels nor predictions.
        """
        counts = self.confusion.double()
        both = counts.diag()
        return 100 * both / (counts.sum(0) + counts.sum(1) - both)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur, in percent; the published tables round to two digits.

        NaN if no pixel counts.
        """
        return float(self.iou.nanmean())

    @property
    def accuracy(self) -> float:
        """Share of the pixels in percent whose class is right."""
        return float(100 * self.confusion.diag().sum() / self.confusion.sum())

    def __add__(self, other: "Segmentation") -> "Segmentation":
        """Of both sets of images together."""
        return Segmentation(self.confusion + other.confusion)


def segmentation(
    predictions: Tensor, labels: Tensor, classes: int, ignore: int = IGNORE
) -> Segmentation:
    """Compare label maps.

    Args:
        predictions, labels: whole numbers of one shape, such as (n, height, width).
        classes: how many there are. Pixels whose label is not from 0 to `classes` - 1 do not count.
        ignore: a label that says that a pixel does not count.

    Raises:
        ValueError: shapes differ, numbers are not whole, no class, or a prediction beyond the
            classes where the label counts.
    """
    checks.whole("classes", classes, 1)
    if predictions.shape != labels.shape:
        raise ValueError(
            "predictions and labels must have one shape; got "
            f"{tuple(predictions.shape)} and {tuple(labels.shape)}"
        )
    for name, one in (("predictions", predictions), ("labels", labels)):
        if one.is_floating_point() or one.dtype == torch.bool:
            raise ValueError(f"{name} must be whole numbers; got {one.dtype}")
    labels, predictions = labels.long().flatten(), predictions.long().flatten()
    counted = (labels >= 0) & (labels < classes) & (labels != ignore)
    labels, predictions = labels[counted], predictions[counted]
    if len(labels) and not (predictions.min() >= 0 and predictions.max() < classes):
        raise ValueError(
            f"predictions must be from 0 to {classes - 1}; "
            f"got {int(predictions.min())} to {int(predictions.max())}"
        )
    counts = torch.bincount(labels * classes + predictions, minlength=classes**2)
    return Segmentation(counts.view(classes, classes))


def mean_iou(predictions: Tensor, labels: Tensor, classes: int, ignore: int = IGNORE) -> float:
    """`segmentation(...).mean_iou`: in percent, over the classes that occur."""
    return segmentation(predictions, labels, classes, ignore).mean_iou
