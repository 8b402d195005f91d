"""Photographs that installed packages carry: backgrounds, textures and single-image sources.

Nothing is downloaded: scikit-image and scikit-learn ship these files inside their wheels.
"""

import warnings
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smallnets.checks import one_of
from smallnets.storage import one_line, user_path

_SKIMAGE = "skimage.data"
_SKLEARN = "sklearn.datasets.images"

# Name, package and file. Colour: astronaut, chelsea (a cat), china (a temple), coffee, flower,
# hubble (deep field), motorcycle, retina, rocket, tissue. The others are grey.
_FILES = {
    "astronaut": (_SKIMAGE, "astronaut.png"),
    "brick": (_SKIMAGE, "brick.png"),
    "camera": (_SKIMAGE, "camera.png"),
    "chelsea": (_SKIMAGE, "chelsea.png"),
    "china": (_SKLEARN, "china.jpg"),
    "coffee": (_SKIMAGE, "coffee.png"),
    "coins": (_SKIMAGE, "coins.png"),
    "flower": (_SKLEARN, "flower.jpg"),
    "grass": (_SKIMAGE, "grass.png"),
    "gravel": (_SKIMAGE, "gravel.png"),
    "hubble": (_SKIMAGE, "hubble_deep_field.jpg"),
    "moon": (_SKIMAGE, "moon.png"),
    "motorcycle": (_SKIMAGE, "motorcycle_left.png"),
    "page": (_SKIMAGE, "page.png"),
    "retina": (_SKIMAGE, "retina.jpg"),
    "rocket": (_SKIMAGE, "rocket.jpg"),
    "tissue": (_SKIMAGE, "ihc.png"),
}


def photograph_names() -> tuple[str, ...]:
    """Names that `photograph` knows."""
    return tuple(_FILES)


@cache
def photograph(name: str) -> Tensor:
    """One photograph at its full size: uint8 (3, height, width); grey ones repeat their channel.

    The tensor is shared between calls: clone it before writing into it.

    Raises:
        ValueError: for a name that `photograph_names` does not list.
    """
    from PIL import Image

    package, file = _FILES[one_of("photograph", name, _FILES)]
    with (files(package) / file).open("rb") as stream, Image.open(stream) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def photograph_file(path: str | Path) -> Tensor:
    """A picture of your own as uint8 (3, height, width), upright as its camera says.

    Grey pictures repeat their channel, transparency is dropped, and sixteen bits become eight; a
    warning says so.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no picture that PIL can read, or numbers that are not finite.
    """
    from PIL import Image, ImageOps

    file = user_path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no photograph {file}; expected a picture file, such as a JPEG")
    try:
        with Image.open(file) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Exception as error:  # a damaged picture ends in whatever its bytes happen to mean
        raise ValueError(f"{file} is no picture that can be read: {one_line(error)}") from error
    pixels, changes = _rgb(upright, file)
    if changes:
        warnings.warn(f"{file}: {' and '.join(changes)}", stacklevel=2)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _rgb(image: Any, file: Path) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (height, width, 3) of a PIL picture, and what was done to get them."""
    changes = []
    if image.mode == "F" or image.mode.startswith("I"):  # one channel of 16, 32 or floating bits
        values = np.array(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"{file} must be finite; got NaN or infinity")
        highest = values.max(initial=0)
        if image.mode == "F":
            unit, said = (1.0, "numbers up to 1") if highest <= 1 else (255.0, "numbers up to 255")
        else:
            unit, said = (65535.0, "16 bits")
        grey = np.rint(values.clip(0, unit) * (255 / unit)).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), [f"{said} became 8", "grey became colour"]
    if "A" in image.mode or "transparency" in image.info:
        changes.append("transparency was dropped")
    if image.mode in ("1", "L", "LA", "La"):
        changes.append("grey became colour")
    return np.array(image.convert("RGB")), changes
