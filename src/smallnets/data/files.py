"""Your own images: a NumPy .npz file with four arrays; and how such files are read and checked."""

from collections.abc import Collection
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from smallnets.data.dataset import Dataset
from smallnets.storage import one_line, user_path

KEYS = ("x_train", "y_train", "x_test", "y_test")


def npz_dataset(file: str | Path, flips: bool = False) -> Dataset:
    """Read a data set from a .npz file.

    The file holds `x_train`, `y_train`, `x_test` and `y_test`, and optionally `class_names` (an
    array of strings; the labels as text unless given):

    - images are uint8, or floating point from 0 to 1; of shape (n, height, width),
      (n, height, width, channels) or (n, channels, height, width), with 1 or 3 channels. If both
      the second and the last axis could be channels, the last one is taken;
    - labels are whole numbers of any integer type, shape (n,) or (n, 1). The classes are 0 to the
      largest training label, and each of them has a training image.

    Images keep the order of the file, so that the first thousand are a fair sample only if the file
    is mixed. Where the training labels come sorted, both parts are shuffled, always in the same
    way.

    Args:
        file: path to the file; pickled objects in it are refused.
        flips: whether a mirrored image keeps its label.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no .npz file, lacks an array, or an array is not as described above.
    """
    path = user_path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"no data file {path}; expected an .npz file with {', '.join(KEYS)}"
        )
    arrays = read_arrays(path, KEYS)
    train, test = (
        (_images(path, f"x_{part}", arrays), labels(path, f"y_{part}", arrays))
        for part in ("train", "test")
    )
    for part, (x, y) in (("train", train), ("test", test)):
        if len(x) != len(y):
            raise ValueError(f"{path}: x_{part} has {len(x)} images but y_{part} {len(y)} labels")
    names = class_names(path, arrays, train[1], test[1])
    if bool((train[1].diff() >= 0).all()):
        train, test = _shuffled(*train), _shuffled(*test)
    return Dataset(f"npz:{path}", *train, *test, names, flips)


def read_arrays(path: Path, needed: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of a .npz file with these names, and `class_names` if it has them.

    Raises:
        ValueError: it is no .npz file, is damaged, or lacks one.
    """
    if not is_zipfile(path):
        raise ValueError(f"{path} is no .npz file, or is damaged")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key in (*needed, "class_names")}
    except Exception as error:  # a damaged archive ends in whatever its bytes happen to mean
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(needed)}")
    return arrays


def _images(path: Path, key: str, arrays: dict[str, np.ndarray]) -> Tensor:
    """One array of images as uint8 (n, channels, height, width)."""
    array = arrays[key]
    given = f"{array.dtype} {array.shape}"
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(
            f"{path}: {key} must have shape (n, height, width), (n, height, width, channels) or "
            f"(n, channels, height, width) with 1 or 3 channels; got {given}"
        )
    if array.size == 0:
        raise ValueError(f"{path}: {key} is empty; got {given}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # false for NaN too
            raise ValueError(
                f"{path}: floating-point images in {key} must be finite and from 0 to 1; "
                f"got {array.min():g} to {array.max():g}"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"{path}: {key} must be uint8, or floating point from 0 to 1; got {given}")
    return torch.from_numpy(np.ascontiguousarray(array))


def labels(path: Path, key: str, arrays: dict[str, np.ndarray]) -> Tensor:
    """One array of labels as int64 (n,).

    Raises:
        ValueError: they are no whole numbers from 0 on, (n,) or (n, 1), or there is none.
    """
    array = arrays[key]
    given = f"{array.dtype} {array.shape}"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iu" or array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{path}: {key} must be whole numbers of shape (n,), n > 0; got {given}")
    if array.min() < 0:
        raise ValueError(f"{path}: labels in {key} must be 0 or greater; got {array.min()}")
    return torch.from_numpy(array.astype(np.int64))


def class_names(
    path: Path, arrays: dict[str, np.ndarray], y_train: Tensor, y_test: Tensor
) -> tuple[str, ...]:
    """A name for each class that has training labels: those of the file, or the labels as text.

    Raises:
        ValueError: training labels with gaps, test labels beyond them, or names that are not one
            string per class.
    """
    classes = int(y_train.max()) + 1
    present = np.unique(y_train.numpy())
    if len(present) < classes:
        missing = int((present != np.arange(len(present))).argmax())
        raise ValueError(
            f"{path}: training labels must be 0 to the number of classes - 1 without gaps; "
            f"the largest is {classes - 1} and there is no {missing}"
        )
    if int(y_test.max()) >= classes:
        raise ValueError(
            f"{path}: labels in y_test must be among the training labels, 0 to {classes - 1}; "
            f"got {int(y_test.max())}"
        )
    names = arrays.get("class_names")
    if names is None:
        return tuple(str(label) for label in range(classes))
    if names.shape != (classes,) or names.dtype.kind != "U":
        raise ValueError(
            f"{path}: class_names must be {classes} strings, one per class; "
            f"got {names.dtype} {names.shape}"
        )
    return tuple(names.tolist())


def _shuffled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return x[order], y[order]
