"""Images that a student may be shown besides the teacher's own: made, taken from elsewhere, held
back.

The paper trains a generative adversarial network. Here a far simpler generator stands in for it: a
Gaussian in the leading principal components of every class. It makes blurred but recognisable
images, and costs milliseconds. Whatever is said about generated images in this study is said about
these.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Dataset


@dataclass(frozen=True, eq=False)
class ClassGaussian:
    """A Gaussian a class in the span of its leading principal components.

    Attributes:
        means: (classes, pixels), in grey levels of 0 to 255.
        axes: (classes, components, pixels), each of the length of one standard deviation; zeros
            where a class has too few images.
        shape: of an image: channels, height, width.
    """

    means: Tensor
    axes: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def fitted(cls, dataset: Dataset, components: int = 30) -> "ClassGaussian":
        """Fit to the training images of every class that has two or more.

        Args:
            dataset: whose training images are imitated.
            components: kept of each class; fewer where a class has fewer images.

        Raises:
            ValueError: no class has two images, or fewer than one component is asked for.
        """
        checks.whole("components", components, 1)
        counts = torch.bincount(dataset.y_train, minlength=dataset.num_classes)
        checks.at_least("training images of some class", int(counts.max()), 2)
        means, axes = [], []
        for label in (counts >= 2).nonzero().flatten().tolist():
            rows = dataset.x_train[dataset.y_train == label].flatten(1).double()
            mean = rows.mean(dim=0)
            centred = rows - mean
            # Few images, many pixels: the small matrix of inner products has the same spectrum.
            _, vectors = torch.linalg.eigh(centred @ centred.T)
            kept = vectors[:, 1:][:, -components:].T @ centred / (len(rows) - 1) ** 0.5
            means.append(mean)
            axes.append(F.pad(kept, (0, 0, 0, components - len(kept))))
        channels, (height, width) = dataset.channels, dataset.size
        return cls(torch.stack(means), torch.stack(axes), (channels, height, width))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` images, uint8 (count, channels, height, width), classes drawn evenly."""
        checks.whole("count", count, 1)
        classes, components, pixels = self.axes.shape
        weights = torch.randn(count, components, generator=generator, dtype=torch.float64)
        images = weights.new_empty(count, pixels)
        for label in range(classes):  # of one class after another, which needs no copy of the axes
            images[label::classes] = self.means[label] + weights[label::classes] @ self.axes[label]
        return images.round().clamp(0, 255).to(torch.uint8).view(count, *self.shape)


def foreign_images(dataset: Dataset, other: Dataset) -> Tensor:
    """Training images of another data set in this one's size and number of channels.

    Args:
        dataset: whose size and channels are wanted.
        other: whose images are shown.

    Returns:
        uint8 (n, channels, height, width); channels become their mean where there are others. A
        class of the same name as one of `dataset` is left out, so that digits among letters do not
        pass for strangers to digits.

    Raises:
        ValueError: the other data set has no class of its own.
    """
    if set(other.class_names) <= set(dataset.class_names):
        raise ValueError(f"foreign images must have classes of their own; {other.name!r} has none")
    known = [i for i, kind in enumerate(other.class_names) if kind in dataset.class_names]
    if known:
        other_kinds = ~torch.isin(other.y_train, torch.tensor(known, dtype=torch.int64))
        other = replace(
            other, x_train=other.x_train[other_kinds], y_train=other.y_train[other_kinds]
        )
    images = other.x_train.float()
    if images.shape[1] not in (1, dataset.channels):
        images = images.mean(dim=1, keepdim=True)
    images = images.expand(-1, dataset.channels, -1, -1)
    if images.shape[2:] != dataset.size:
        images = F.interpolate(images, dataset.size, mode="bilinear", antialias=True)
    return images.round().clamp(0, 255).to(torch.uint8)


def halves(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """The training images in two halves with every class evenly in both: D0 and D1 of section
    5.2.
    """
    return dataset.divided(len(dataset.y_train) // 2, seed)
