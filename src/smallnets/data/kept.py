"""Images that are made or decoded once and then read from the cache directory."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from smallnets.storage import atomic_path, cache_directory, content_key


def kept(
    stem: str, make: Callable[[], tuple[Tensor, Tensor]], **content: Any
) -> tuple[Tensor, Tensor]:
    """What `make()` returns, or what it returned when it was last called for the same `content`.

    Args:
        stem: beginning of the file's name, for people who look into the folder.
        make: returns images uint8 (n, c, h, w) and labels int64 (n,).
        content: everything that decides the result, as `content_key` takes it.

    A file that cannot be read is made again, with a warning.
    """
    file = cache_directory() / "data" / f"{stem}-{content_key(**content)}.npz"
    if file.exists():
        try:
            return _read(file)
        except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
            warnings.warn(f"{file} cannot be read ({error}): making it again", stacklevel=2)
    images, labels = make()
    with atomic_path(file) as temporary:
        np.savez(temporary, images=images.numpy(), labels=labels.numpy())
    return images, labels


def _read(file: Path) -> tuple[Tensor, Tensor]:
    with (
        file.open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):  # checks a CRC of every array
        return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
