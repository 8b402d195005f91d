"""Sets of images with their labels and the constants that they were normalised with.

Real images, chosen ones and synthetic ones have one form, so that every method is evaluated by the
same lines. Pixels of synthetic images live in normalised space and are not clipped; they are
clipped where they are shown or turned into bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.data import Dataset
from smallnets.storage import atomic_path, one_line, user_path

# Constants that the published figures were made with. CIFAR-10's deviations are the widespread,
# too small ones.
PUBLISHED_MOMENTS = {
    "MNIST": ((0.1307,), (0.3081,)),
    "Fashion-MNIST": ((0.2861,), (0.3530,)),
    "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "CIFAR-100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "TinyImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
GREY_LEVELS = 32.0  # more than any normalised pixel; images without negative ones are 0-255
KEYS = ("images", "labels", "mean", "std", "classes")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, labels and constants.

    Attributes:
        images: float32 (n, channels, height, width), normalised; or uint8, which `take` normalises.
        labels: int64 (n,), from 0 to the number of classes - 1.
        mean, std: float32 (channels,), of pixels / 255.
        classes: names, one a class.

    Raises:
        ValueError: the parts do not fit, pixels are not finite, or floating-point images are not
            normalised.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        x, y = self.images, self.labels
        if x.dim() != 4 or x.numel() == 0 or not (x.is_floating_point() or x.dtype == torch.uint8):
            raise ValueError(
                "images must be uint8 or floating-point (n, channels, height, width) and not "
                f"empty; got {x.dtype} {tuple(x.shape)}"
            )
        if y.shape != x.shape[:1] or y.dtype != torch.int64:
            raise ValueError(
                f"labels must be int64 ({len(x)},), one an image; got {y.dtype} {tuple(y.shape)}"
            )
        if y.min() < 0 or y.max() >= len(self.classes):
            raise ValueError(
                f"labels must be from 0 to {len(self.classes) - 1}; "
                f"got {int(y.min())} to {int(y.max())}"
            )
        for name in ("mean", "std"):
            if getattr(self, name).shape != x.shape[1:2]:
                raise ValueError(
                    f"{name} must have one number a channel, ({x.shape[1]},); "
                    f"got {tuple(getattr(self, name).shape)}"
                )
        if not bool((self.std > 0).all()):
            raise ValueError(f"std must be greater than 0; got {self.std.tolist()}")
        if x.is_floating_point():
            _check_normalised(x)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        n, channels, height, width = self.images.shape
        return (
            f"{type(self).__name__}({n} images of {channels}x{height}x{width}, "
            f"{len(self.classes)} classes)"
        )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def take(self, which: Tensor | slice) -> Tensor:
        """Some of the images, normalised float32."""
        x = self.images[which]
        if x.dtype != torch.uint8:
            return x
        return (x.float() - 255 * _per_channel(self.mean)) / (255 * _per_channel(self.std))

    def members(self) -> list[Tensor]:
        """Places of the images of every class, one int64 list a class, in their order."""
        order = self.labels.argsort(stable=True)
        counts = self.labels.bincount(minlength=self.num_classes).tolist()
        return list(order.split(counts))

    def normalised(self) -> "ImageSet":
        """The same set with float32 images."""
        return replace(self, images=self.take(slice(None)))

    def subset(self, which: Tensor) -> "ImageSet":
        """The images at some places, with all class names."""
        return ImageSet(self.images[which], self.labels[which], self.mean, self.std, self.classes)

    def of_classes(self, classes: Sequence[int]) -> "ImageSet":
        """The images of some classes, with their labels as they are.

        Raises:
            ValueError: a class that is not there.
        """
        for label in classes:
            checks.between("class", checks.whole("class", label, 0), 0, self.num_classes - 1)
        return self.subset(torch.isin(self.labels, torch.tensor(list(classes))).nonzero()[:, 0])


class SyntheticSet(ImageSet):
    """A small set that training sees in place of the real one: learned, or chosen from it.

    Images are float32 and ordered by class.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.images.is_floating_point():
            raise ValueError("images of a synthetic set must be normalised float32; got uint8")
        if bool((self.labels.diff() < 0).any()):
            raise ValueError("images must be ordered by class; got labels that fall")

    @property
    def ipc(self) -> int:
        """Images a class.

        Raises:
            ValueError: classes have different numbers.
        """
        counts = set(self.labels.bincount().tolist()) - {0}
        if len(counts) != 1:
            raise ValueError(f"classes must have equally many images; got {sorted(counts)}")
        return counts.pop()

    def pixels(self) -> Tensor:
        """The images as they are shown: (n, channels, height, width) in [0, 1], clipped."""
        found = self.images.cpu() * _per_channel(self.std) + _per_channel(self.mean)
        return found.clamp(0, 1)

    def to_uint8(self) -> Tensor:
        """The images as bytes, rounded; what lies outside the valid range is clipped."""
        return (self.pixels() * 255).round().to(torch.uint8)

    def save(self, path: str | Path) -> None:
        """Write images, labels, constants and names as one .npz file, whole or not at all."""
        arrays = {
            "images": self.images.cpu().numpy(), "labels": self.labels.cpu().numpy(),
            "mean": self.mean.numpy(), "std": self.std.numpy(), "classes": np.array(self.classes),
        }  # fmt: skip
        with atomic_path(user_path(path)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: str | Path) -> "SyntheticSet":
        """Read a set that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, lacks an array, or holds no such set.
        """
        file = user_path(path)
        if not file.is_file():
            raise FileNotFoundError(f"no set {file}; expected an .npz file that save() wrote")
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in KEYS}
        except Exception as error:  # a damaged archive ends in whatever its bytes happen to mean
            raise ValueError(f"{file} is no synthetic set: {one_line(error)}") from error
        images, labels, mean, std = (torch.from_numpy(arrays[key]) for key in KEYS[:4])
        try:
            return SyntheticSet(images, labels, mean, std, tuple(arrays["classes"].tolist()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} is no synthetic set: {one_line(error)}") from error


Data: TypeAlias = Dataset | ImageSet


def image_set(
    images: Tensor,
    labels: Tensor,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> ImageSet:
    """Tensors of your own as a set.

    Args:
        images: uint8 (n, channels, height, width), normalised with `mean` and `std` as they are
            used; or floating-point images that are normalised already.
        labels: whole numbers (n,), from 0 on.
        mean, std: of pixels / 255, one a channel. None measures them on uint8 images; normalised
            ones are then taken as they are, with mean 0 and deviation 1.
        classes: names; the labels as text unless given.

    Raises:
        ValueError: see `ImageSet`; one constant without the other; labels that are not whole.
    """
    if (mean is None) != (std is None):
        raise ValueError("mean and std must be given together; got only one of them")
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.numel() == 0:
        raise ValueError(f"labels must be whole numbers (n,); got {labels.dtype}")
    if mean is None or std is None:
        channels = images.shape[1] if images.dim() == 4 else 0
        mean, std = torch.zeros(channels), torch.ones(channels)
        if images.dtype == torch.uint8 and channels:
            mean, std = _moments(images)
    if images.is_floating_point():
        images = images.float()
    names = classes or [str(label) for label in range(int(labels.max()) + 1)]
    mean, std = (torch.as_tensor(one, dtype=torch.float32) for one in (mean, std))
    images = images.contiguous()  # the order that is sound for every network, see `models.layout`
    return ImageSet(images, labels.long(), mean, std, tuple(names))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Means and deviations of pixels / 255, one a channel, from how often every level occurs."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = [channel.flatten().bincount(minlength=256) for channel in images.unbind(1)]
    total = int(counts[0].sum())
    shares = torch.stack(counts).double() / total
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]).square()).sum(1) * total / max(1, total - 1)
    return mean.float(), variance.sqrt().clamp(min=1 / 255).float()


def training_set(data: Data) -> ImageSet:
    """The training part of a `Dataset`, or a set as it is.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(data, ImageSet):
        return data
    if not isinstance(data, Dataset):
        raise ValueError(
            "data must be a Dataset or an ImageSet, which image_set() makes of tensors; "
            f"got {type(data).__name__}"
        )
    return ImageSet(data.x_train, data.y_train, data.mean, data.std, data.class_names)


def test_set(data: Data) -> ImageSet:
    """The test part of a `Dataset`, normalised as its training part; or a set as it is."""
    if not isinstance(data, Dataset):
        return training_set(data)
    return ImageSet(data.x_test, data.y_test, data.mean, data.std, data.class_names)


def merged(sets: Sequence[SyntheticSet]) -> SyntheticSet:
    """Sets of different classes as one, ordered by class.

    Raises:
        ValueError: there is none, they have other constants, classes or images, or share a class.
    """
    if not sets:
        raise ValueError("sets must hold at least one set; got none")
    first = sets[0]
    for other in sets[1:]:
        check_same_constants(other, first)
        if other.classes != first.classes or other.images.shape[1:] != first.images.shape[1:]:
            raise ValueError(f"sets must have the same classes and sizes; got {first} and {other}")
    labels = [set(one.labels.tolist()) for one in sets]
    if len(set().union(*labels)) < sum(map(len, labels)):
        raise ValueError("sets must hold different classes; got a class twice")
    images, together = torch.cat([s.images for s in sets]), torch.cat([s.labels for s in sets])
    order = together.argsort(stable=True)
    return SyntheticSet(images[order], together[order], first.mean, first.std, first.classes)


def check_same_constants(trained: ImageSet, tested: ImageSet) -> None:
    """Check that two sets are normalised alike.

    Raises:
        ValueError: they are not.
    """
    for name in ("mean", "std"):
        mine, theirs = getattr(trained, name), getattr(tested, name)
        if mine.shape != theirs.shape or not torch.allclose(mine, theirs, atol=1e-4):
            raise ValueError(
                f"both sets must be normalised alike; got {name} {mine.tolist()} and "
                f"{theirs.tolist()}"
            )


def check_classes(data: ImageSet, classes: Sequence[int], least: int = 1) -> None:
    """Check that every one of `classes` has at least `least` images.

    Raises:
        ValueError: one has not; the line names it.
    """
    counts = data.labels.bincount(minlength=data.num_classes)
    for label in classes:
        if counts[label] < least:
            raise ValueError(
                f"every class must have at least {least} images; class {label} has "
                f"{int(counts[label])}"
            )


def _per_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _check_normalised(x: Tensor) -> None:
    low, high = (float(end) for end in x.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("images must be finite; got nan or inf")
    if low >= 0 and high > GREY_LEVELS:
        raise ValueError(
            f"floating-point images must be normalised; got values from {low:g} to {high:g}, "
            "which look like grey levels: pass uint8 and their mean and std"
        )
