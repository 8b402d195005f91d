"""Images that are made or decoded once and then read from the cache directory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smallnets.storage import DIGEST, Arrays, cache_directory, content_key, kept_arrays


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

    def arrays() -> Arrays:
        images, labels = make()
        return {"images": images.numpy(), "labels": labels.numpy()}

    key = content_key(kept_with=DIGEST, **content)  # files of versions without it have other names
    file = cache_directory() / "data" / f"{stem}-{key}.npz"
    found = kept_arrays(file, arrays)
    return torch.from_numpy(found["images"]), torch.from_numpy(found["labels"])
