"""Two domains of images, in pairs or not: what image-to-image translation learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.data.files import read_arrays
from smallnets.storage import user_path

ARRAYS = ("a_train", "b_train", "a_test", "b_test")
NPZ = "npz:"


@dataclass(frozen=True, eq=False)
class Translation:
    """Images of domain A, which are translated, and of domain B, as which they should come out.

    Attributes:
        name: where they are from.
        a_train, b_train, a_test, b_test: uint8 (n, channels, height, width), all of one height and
            width; 0 and 1 where `one_hot`.
        paired: whether image i of A and of B belong together in training.
        aligned: whether they do so in the test part, so that the distance to the truth can be
            measured there; pairs always do.
        one_hot: whether A holds label maps, one channel a class and one of the borders between
            instances, rather than pictures.
        labels_train, labels_test: uint8 (n, height, width), the label maps of `b_train` and
            `b_test`, for scores; None where there are none.
        class_names: of these labels.
        flips: whether a mirrored image belongs to its domain.

    Raises:
        ValueError: types, sizes or numbers that do not fit.
    """

    name: str
    a_train: Tensor
    b_train: Tensor
    a_test: Tensor
    b_test: Tensor
    paired: bool
    aligned: bool = True
    one_hot: bool = False
    labels_train: Tensor | None = None
    labels_test: Tensor | None = None
    class_names: tuple[str, ...] = ()
    flips: bool = False

    def __post_init__(self) -> None:
        for name in ARRAYS:
            images = getattr(self, name)
            if images.dtype != torch.uint8 or images.ndim != 4 or images.numel() == 0:
                raise ValueError(
                    f"{name} must be uint8 (n, channels, height, width) and not empty; "
                    f"got {images.dtype} {tuple(images.shape)}"
                )
        for side in "ab":
            train, test = getattr(self, f"{side}_train"), getattr(self, f"{side}_test")
            if train.shape[1:] != test.shape[1:]:
                raise ValueError(
                    f"{side}_train and {side}_test must hold images of one shape; "
                    f"got {tuple(train.shape[1:])} and {tuple(test.shape[1:])}"
                )
        if self.a_train.shape[2:] != self.b_train.shape[2:]:
            raise ValueError(
                "a_train and b_train must have one height and width; "
                f"got {tuple(self.a_train.shape[2:])} and {tuple(self.b_train.shape[2:])}"
            )
        parts = (("train", self.paired), ("test", self.paired or self.aligned))
        for part, together in parts:
            a, b = getattr(self, f"a_{part}"), getattr(self, f"b_{part}")
            if together and len(a) != len(b):
                raise ValueError(
                    f"pairs of the {part} part must be as many in A and B; "
                    f"got {len(a)} and {len(b)}"
                )
            labels = getattr(self, f"labels_{part}")
            if labels is None:
                continue
            if labels.shape != (len(b), *b.shape[2:]) or labels.dtype != torch.uint8:
                raise ValueError(
                    f"labels_{part} must be uint8 {(len(b), *b.shape[2:])}, one map an image of B; "
                    f"got {labels.dtype} {tuple(labels.shape)}"
                )
            if int(labels.max()) >= len(self.class_names):
                raise ValueError(
                    f"labels_{part} must be from 0 to {len(self.class_names) - 1}; "
                    f"got {int(labels.max())}"
                )
        if self.one_hot and int(max(self.a_train.max(), self.a_test.max())) > 1:
            raise ValueError("one-hot maps in A must be 0 and 1; got more")

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"Translation({self.name}: {len(self.a_train)} and {len(self.b_train)} training, "
            f"{len(self.a_test)} and {len(self.b_test)} test images, "
            f"{'paired' if self.paired else 'unpaired'}, {self.a_channels} -> {self.b_channels} "
            f"channels, {height}x{width})"
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.a_train.shape[2], self.a_train.shape[3]

    @property
    def a_channels(self) -> int:
        return self.a_train.shape[1]

    @property
    def b_channels(self) -> int:
        return self.b_train.shape[1]

    def a(self, images: Tensor) -> Tensor:
        """Images of A as networks take them: float32, pictures in [-1, 1], one-hot maps in
        {0, 1}.
        """
        return images.float() if self.one_hot else as_signed(images)

    def b(self, images: Tensor) -> Tensor:
        """Images of B as networks take and make them, float32 in [-1, 1]."""
        return as_signed(images)

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that change when any training image changes."""
        digest = sha256(repr((self.paired, self.one_hot, self.flips)).encode())
        for images in (self.a_train, self.b_train):
            digest.update(repr(tuple(images.shape)).encode())
            digest.update(images.cpu().contiguous().numpy())
        return digest.hexdigest()[:16]

    def take(self, train: int | None = None, test: int | None = None) -> "Translation":
        """The first `train` and `test` images of both domains; None takes all."""
        for name, count in (("train", train), ("test", test)):
            if count is not None:
                checks.whole(name, count, 1)
        parts = {"train": train, "test": test}
        return replace(self, **{
            f"{side}_{part}": one[:count]
            for part, count in parts.items() for side in ("a", "b", "labels")
            if (one := getattr(self, f"{side}_{part}")) is not None
        })  # fmt: skip

    def held_out(self, count: int, seed: int = 0) -> "Translation":
        """A set for choosing: its test part is taken out of the training part.

        Args:
            count: images of each domain to hold out.
            seed: which.

        Raises:
            ValueError: nothing would be left to train on.
        """
        checks.whole("count", count, 1)
        fewest = min(len(self.a_train), len(self.b_train))
        checks.between("count", count, 1, fewest - 1)
        draw = torch.Generator().manual_seed(seed)
        order_a = torch.randperm(len(self.a_train), generator=draw)
        order_b = order_a if self.paired else torch.randperm(len(self.b_train), generator=draw)
        out_a, out_b = order_a[:count].sort().values, order_b[:count].sort().values
        in_a, in_b = order_a[count:].sort().values, order_b[count:].sort().values
        labels = self.labels_train
        return replace(
            self,
            a_train=self.a_train[in_a],
            b_train=self.b_train[in_b],
            a_test=self.a_train[out_a],
            b_test=self.b_train[out_b],
            aligned=self.paired,
            labels_train=None if labels is None else labels[in_b],
            labels_test=None if labels is None else labels[out_b],
        )


def as_signed(images: Tensor) -> Tensor:
    """uint8 images as float32 from -1 to 1."""
    return images.float() / 127.5 - 1


def as_levels(images: Tensor) -> Tensor:
    """Images from -1 to 1 as uint8, to look at or to keep."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def translation_npz(file: str | Path, paired: bool = True, flips: bool = False) -> Translation:
    """Two domains of your own from a .npz file with `a_train`, `b_train`, `a_test` and `b_test`.

    Images are uint8, or floating point from 0 to 1; (n, height, width),
    (n, height, width, channels) or (n, channels, height, width) with 1 or 3 channels.

    Args:
        file: path to the file; pickled objects in it are refused.
        paired: whether image i of A belongs to image i of B.
        flips: whether a mirrored image belongs to its domain.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .npz file, lacks an array, or an array is not as described.
    """
    path = user_path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"no data file {path}; expected an .npz file with {', '.join(ARRAYS)}"
        )
    arrays = read_arrays(path, ARRAYS)
    images = {name: _images(path, name, arrays[name]) for name in ARRAYS}
    aligned = len(images["a_test"]) == len(images["b_test"]) and paired
    return Translation(f"{NPZ}{path}", **images, paired=paired, aligned=aligned, flips=flips)


def _images(path: Path, name: str, array: np.ndarray) -> Tensor:
    """One array as uint8 (n, channels, height, width)."""
    given = f"{array.dtype} {array.shape}"
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or array.size == 0:
        raise ValueError(
            f"{path}: {name} must be images (n, height, width), (n, height, width, channels) or "
            f"(n, channels, height, width) with 1 or 3 channels; got {given}"
        )
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # false for NaN too
            raise ValueError(
                f"{path}: floating-point images in {name} must be finite and from 0 to 1; "
                f"got {array.min():g} to {array.max():g}"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(
            f"{path}: {name} must be uint8, or floating point from 0 to 1; got {given}"
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def one_hot_maps(labels: Tensor, instances: Tensor | None, classes: int) -> Tensor:
    """Label maps as one channel a class, and one of the borders between instances.

    A border is a pixel with a neighbour above, below, left or right of another instance.

    Args:
        labels: whole numbers (n, height, width).
        instances: likewise; None leaves the channel of borders out.
        classes: how many there are.

    Returns:
        uint8 (n, classes or classes + 1, height, width), 0 and 1.

    Raises:
        ValueError: a label out of range, or instances of another shape.
    """
    checks.whole("classes", classes, 1)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}; got {low} to {high}")
    maps = torch.stack([labels == one for one in range(classes)], dim=1)
    if instances is None:
        return maps.to(torch.uint8)
    if instances.shape != labels.shape:
        raise ValueError(
            f"instances must have the shape of the labels, {tuple(labels.shape)}; "
            f"got {tuple(instances.shape)}"
        )
    border = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[:, :, 1:] != instances[:, :, :-1]
    down = instances[:, 1:] != instances[:, :-1]
    border[:, :, 1:] |= across
    border[:, :, :-1] |= across
    border[:, 1:] |= down
    border[:, :-1] |= down
    return torch.cat([maps, border[:, None]], dim=1).to(torch.uint8)


def sheet(rows: Sequence[Tensor], gap: int = 2) -> Tensor:
    """Rows of images as one picture to look at: uint8 (3, height, width), white between.

    Args:
        rows: uint8 (n, 1 or 3, height, width) each, all of one n and size.
        gap: white pixels between images.
    """
    lines = []
    for row in rows:
        row = row.expand(-1, 3, -1, -1)
        padded = torch.nn.functional.pad(row, (0, gap, 0, gap), value=255)
        lines.append(torch.cat(list(padded), dim=2))
    return torch.cat(lines, dim=1)[:, : -gap or None, : -gap or None]
