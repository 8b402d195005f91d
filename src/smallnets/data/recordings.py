"""Recordings of words: waves and labels in memory, and your own from a .npz file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.data.files import class_names, labels, read_arrays
from smallnets.storage import user_path

KEYS = ("x_train", "y_train", "x_test", "y_test", "rate")


@dataclass(frozen=True, eq=False)
class Recordings:
    """Waves of one length, and what is said in them.

    Attributes:
        name: where they come from.
        x_train, x_test: float32 (n, samples), mostly within -1 to 1.
        y_train, y_test: int64 labels (n,), from 0 to the number of classes - 1.
        class_names: one per class.
        rate: samples a second.

    Raises:
        ValueError: shapes, types or labels disagree, or a wave is not finite.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    class_names: tuple[str, ...]
    rate: int

    def __post_init__(self) -> None:
        checks.whole("rate", self.rate, 1)
        for part, x, y in (
            ("train", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            if x.dim() != 2 or x.numel() == 0 or not x.is_floating_point():
                raise ValueError(
                    f"x_{part} must be floating point (n, samples) and not empty; "
                    f"got {x.dtype} {tuple(x.shape)}"
                )
            if not bool(x.isfinite().all()):
                raise ValueError(f"x_{part} must be finite; got NaN or infinity")
            if y.dtype != torch.int64 or y.shape != x.shape[:1]:
                raise ValueError(
                    f"y_{part} must be int64 ({len(x)},), a label per recording; "
                    f"got {y.dtype} {tuple(y.shape)}"
                )
            if y.min() < 0 or y.max() >= len(self.class_names):
                raise ValueError(
                    f"labels in y_{part} must be from 0 to {len(self.class_names) - 1}; "
                    f"got {int(y.min())} to {int(y.max())}"
                )
        if self.x_train.shape[1] != self.x_test.shape[1]:
            raise ValueError(
                "x_train and x_test must hold recordings of one length; "
                f"got {self.x_train.shape[1]} and {self.x_test.shape[1]} samples"
            )


def npz_recordings(file: str | Path) -> Recordings:
    """Read recordings from a .npz file.

    The file holds `x_train` and `x_test` (n, samples), int16 or floating point from -1 to 1,
    `y_train` and `y_test` (n,), whole numbers from 0, `rate` in samples a second, and optionally
    `class_names`. Labels and names are as in `npz_dataset`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .npz file, lacks an array, or an array is not as described.
    """
    path, arrays = _arrays(file, KEYS)
    waves = {part: _wave(path, f"x_{part}", arrays[f"x_{part}"], 2) for part in ("train", "test")}
    y_train, y_test = (labels(path, f"y_{part}", arrays) for part in ("train", "test"))
    names = class_names(path, arrays, y_train, y_test)
    rate = _rate(path, arrays["rate"])
    try:
        return Recordings(
            f"npz:{path}", waves["train"], y_train, waves["test"], y_test, names, rate
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def npz_clip(file: str | Path) -> tuple[Tensor, int]:
    """Read one long clip from a .npz file: `wave` (samples,), int16 or floating point, and `rate`.

    Returns:
        The wave, float32 (samples,), and the samples a second.

    Raises: as `npz_recordings`.
    """
    path, arrays = _arrays(file, ("wave", "rate"))
    return _wave(path, "wave", arrays["wave"], 1), _rate(path, arrays["rate"])


def _arrays(file: str | Path, needed: tuple[str, ...]) -> tuple[Path, dict[str, np.ndarray]]:
    path = user_path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no recordings {path}; expected an .npz file: {', '.join(needed)}")
    return path, read_arrays(path, needed)


def _wave(path: Path, key: str, array: np.ndarray, dimensions: int) -> Tensor:
    shape = "(samples,)" if dimensions == 1 else "(n, samples)"
    whole = array.dtype.kind == "i" and array.dtype.itemsize == 2
    if array.ndim != dimensions or array.size == 0 or not (whole or array.dtype.kind == "f"):
        raise ValueError(
            f"{path}: {key} must be int16 or floating point {shape} and not empty; "
            f"got {array.dtype} {array.shape}"
        )
    if whole:
        array = array / 32768
    elif not (array.min() >= -1 and array.max() <= 1):  # false for NaN too
        raise ValueError(
            f"{path}: floating-point waves in {key} must be finite and from -1 to 1; "
            f"got {array.min():g} to {array.max():g}"
        )
    return torch.from_numpy(array.astype(np.float32))


def _rate(path: Path, array: np.ndarray) -> int:
    if array.size != 1 or array.dtype.kind not in "iu" or array.item() < 1:
        raise ValueError(f"{path}: rate must be one whole number of at least 1; got {array!r}")
    return int(array.item())
