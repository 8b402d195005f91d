"""Photographs that installed packages carry: backgrounds, textures and single-image sources.

Nothing is downloaded: scikit-image and scikit-learn ship these files inside their wheels.
"""

from functools import cache
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from smallnets.checks import one_of

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
