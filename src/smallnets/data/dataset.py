"""A classification data set held in memory, and the few ways of cutting it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smallnets.checks import at_least, between, whole


class TrainingImages(NamedTuple):
    """Training images as a network takes them, without augmentation, and their labels.

    Whatever is chosen by images (scores, judgements, calibration) is chosen by these;
    `Dataset.for_choosing` makes them.
    """

    images: Tensor  # (n, channels, height, width), normalised float32
    labels: Tensor  # (n,)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of a training and a test part.

    Attributes:
        name: what `smallnets.data.load` was asked for.
        x_train, x_test: uint8 images, (n, channels, height, width), of any size and number of
            channels.
        y_train, y_test: int64 labels (n,), from 0 to the number of classes - 1.
        class_names: one per class, in label order.
        flips: whether a mirrored image keeps its label (true of animals, false of characters).
        moments: mean and standard deviation (channels,) that `normalise` uses. None takes those of
            `x_train`; a part of a set that a network was trained on needs those of the whole.

    Raises:
        ValueError: if the shapes, types or label range disagree.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    class_names: tuple[str, ...]
    flips: bool
    moments: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        _check_part("train", self.x_train, self.y_train, self.num_classes)
        _check_part("test", self.x_test, self.y_test, self.num_classes)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                "x_train and x_test must hold images of one shape; got "
                f"{tuple(self.x_train.shape[1:])} and {tuple(self.x_test.shape[1:])}"
            )

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"Dataset({self.name}: {len(self.x_train)} training and {len(self.x_test)} test "
            f"images, {self.num_classes} classes, {self.channels}x{height}x{width})"
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.x_train.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.x_train.shape[2], self.x_train.shape[3]

    @property
    def _moments(self) -> tuple[Tensor, Tensor]:
        if self.moments is not None:
            return self.moments
        pixels = self.x_train
        version = None if pixels.is_inference() else pixels._version  # writes in place, counted
        if self._remembered.get("version", -1) != version:
            self._remembered.update(version=version, moments=_moments_of(pixels))
        return self._remembered["moments"]

    @cached_property
    def _remembered(self) -> dict[str, Any]:
        """The latest moments, and which version of the images they are of."""
        return {}

    @property
    def mean(self) -> Tensor:
        """Mean of each channel of `x_train` / 255, float32 (channels,), unless `moments` say it."""
        return self._moments[0]

    @property
    def std(self) -> Tensor:
        """Standard deviation of each channel of `x_train` / 255, at least 1/255, unless `moments`
        say it.
        """
        return self._moments[1]

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that change when any image, label or class name changes, or
        what `normalise` does.

        They are found anew each time, as images and labels can be written in place.
        """
        digest = sha256(repr((self.class_names, self.flips)).encode())
        for tensor in (self.x_train, self.y_train, self.x_test, self.y_test, *self._moments):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()[:16]

    def glance(self, count: int = 2) -> Tensor:
        """The first training images, at most `count`, normalised."""
        return self.normalise(self.x_train[:count])

    def of_classes(self, count: int) -> "Dataset":
        """The data set itself, which knows its classes; see `Batches.of_classes`."""
        return self

    def normalise(self, x: Tensor) -> Tensor:
        """Subtract the training mean and divide by the training deviation, channel by channel.

        Args:
            x: images (n, channels, height, width), uint8 or floating point within [0, 1].

        Returns:
            float32 of the same shape, on the device of `x`.
        """
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(f"images must be uint8 or floating point; got {x.dtype}")
        unit = 255.0 if x.dtype == torch.uint8 else 1.0
        mean = (self.mean * unit).to(x.device).view(-1, 1, 1)
        std = (self.std * unit).to(x.device).view(-1, 1, 1)
        return (x.float() - mean) / std

    def normalised_like(self, other: "Dataset") -> "Dataset":
        """The same images, normalised with the statistics of another set's training images.

        A network that was trained on `other` then sees them as it is used to.

        Raises:
            ValueError: if the sets have different numbers of channels.
        """
        if self.channels != other.channels:
            raise ValueError(
                f"both sets must have the same channels; got {self.channels} and {other.channels}"
            )
        return replace(self, moments=(other.mean, other.std))

    def take(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """The first `train` and `test` images, or as many as there are; None takes all."""
        for name, count in (("train", train), ("test", test)):
            if count is not None:
                whole(name, count, 1)
        return replace(
            self,
            x_train=self.x_train[:train],
            y_train=self.y_train[:train],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )

    def for_choosing(self, count: int) -> TrainingImages:
        """The first `count` training images, normalised, or as many as there are, and their labels.

        Scores, judgements and calibration take their images from here: test images choose nothing.

        Raises:
            ValueError: fewer than one image.
        """
        whole("count", count, 1)
        return TrainingImages(self.normalise(self.x_train[:count]), self.y_train[:count])

    def held_out(self, count: int, seed: int = 0) -> "Dataset":
        """A data set for choosing settings: its test part is taken out of the training part.

        Args:
            count: images to hold out; every class gives its share, to within one image.
            seed: which images of each class.

        Returns:
            A Dataset with the other training images, in their old order, and `count` test images.
        """
        others, drawn = self.divided(count, seed)
        return replace(others, x_test=drawn.x_train, y_test=drawn.y_train)

    def divided(self, count: int, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """Two data sets that share out the training images, each with the whole test part.

        Args:
            count: training images of the second, drawn so that every class gives its share, to
                within one image.
            seed: which images of each class.

        Returns:
            One with the other training images, in their old order, and one with the `count` drawn.

        Raises:
            ValueError: either would have no training image.
        """
        whole("count", count, 1)
        between("count", count, 1, len(self.y_train) - 1)
        generator = torch.Generator().manual_seed(seed)
        shuffled = torch.randperm(len(self.y_train), generator=generator)
        labels = self.y_train[shuffled].cpu()
        # The j-th of the m images of a class sits at (j + 1/2) / m: a cut anywhere is stratified.
        by_class = torch.argsort(labels, stable=True)
        sizes = torch.bincount(labels, minlength=self.num_classes)
        first = sizes.cumsum(0) - sizes
        rank = torch.arange(len(labels)) - first[labels[by_class]]
        place = (rank + 0.5) / sizes[labels[by_class]]
        chosen = shuffled[by_class[torch.argsort(place, stable=True)[:count]]]
        kept = torch.ones(len(labels), dtype=torch.bool)
        kept[chosen] = False
        others = replace(self, x_train=self.x_train[kept], y_train=self.y_train[kept])
        return others, replace(self, x_train=self.x_train[chosen], y_train=self.y_train[chosen])

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Dataset":
        """The data set with other images for the same labels.

        Args:
            change: uint8 images (n, channels, height, width) -> as many of one shape; called with
                the training part, then with the test part.
        """
        return replace(self, x_train=change(self.x_train), x_test=change(self.x_test))

    def classes(self, keep: Sequence[int]) -> "Dataset":
        """Only the classes `keep`, relabelled 0, 1, ... in the order given.

        Raises:
            ValueError: if `keep` is empty, repeats a class or names one that is not there.
        """
        at_least("number of classes to keep", len(keep), 1)
        if len(set(keep)) < len(keep) or not set(keep) <= set(range(self.num_classes)):
            raise ValueError(
                f"keep must name different classes from 0 to {self.num_classes - 1}; "
                f"got {list(keep)}"
            )
        new_label = torch.full((self.num_classes,), -1)
        new_label[list(keep)] = torch.arange(len(keep))
        train = new_label[self.y_train.cpu()].to(self.y_train.device)
        test = new_label[self.y_test.cpu()].to(self.y_test.device)
        return replace(
            self,
            x_train=self.x_train[train >= 0],
            y_train=train[train >= 0],
            x_test=self.x_test[test >= 0],
            y_test=test[test >= 0],
            class_names=tuple(self.class_names[c] for c in keep),
        )


def _moments_of(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (channels,) of uint8 images / 255."""
    # From counts of the 256 grey levels: exact, and without a float copy of the images.
    levels = torch.arange(256, dtype=torch.float64) / 255
    pixels = images.transpose(0, 1)
    counts = torch.stack([torch.bincount(c.reshape(-1).cpu(), minlength=256) for c in pixels])
    share = counts / counts.sum(dim=1, keepdim=True, dtype=torch.float64)
    mean = share @ levels
    variance = share @ levels.square() - mean.square()
    return mean.float(), variance.clamp(min=255.0**-2).sqrt().float()


def _check_part(part: str, x: Tensor, y: Tensor, classes: int) -> None:
    if x.dtype != torch.uint8 or x.ndim != 4 or x.numel() == 0:
        raise ValueError(
            f"x_{part} must be uint8 (n, channels, height, width) and not empty; "
            f"got {x.dtype} {tuple(x.shape)}"
        )
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise ValueError(
            f"y_{part} must be int64 ({len(x)},), a label per image; got {y.dtype} {tuple(y.shape)}"
        )
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(
            f"labels in y_{part} must be from 0 to {classes - 1}; "
            f"got {int(y.min())} to {int(y.max())}"
        )
