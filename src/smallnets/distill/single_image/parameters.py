"""Every random number of a patch, drawn for whole batches (section 3.1 of the official generator).

The order of the steps: a first square of the photograph, a box inside it (rejection sampling),
resizing, rotation and shear, vertical flip, the middle, colour jitter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.distill.single_image.chance import below, between, uniforms
from smallnets.distill.single_image.settings import (
    INTERPOLATIONS,
    PUBLISHED_PATCHES,
    PatchSettings,
)

# Slots of a patch's random numbers; those of its boxes' trials follow, two a trial.
SOURCE, INITIAL, PLACE, ANGLE, SHEAR, FLIP, JITTER, FACTORS, ORDER, FILTER = (
    0, 1, 3, 5, 6, 7, 8, 9, 13, 17
)  # fmt: skip
TRIALS = 32


@dataclass(frozen=True, eq=False)
class PatchParameters:
    """What was drawn for n patches. Boxes are top, left, height, width.

    Attributes:
        source: int64 (n,), which photograph.
        initial: int64 (n, 4), the first square.
        box: int64 (n, 4), within the first square.
        angle: float64 (n,), degrees, clockwise as images are seen.
        shear: float64 (n, 2), degrees along x and y; the generator has no shear along y.
        flip: bool (n,), upside down.
        jitter: bool (n,), whether the colours are changed.
        order: int64 (n, 4), in which order: 0 brightness, 1 contrast, 2 saturation, 3 hue.
        factors: float64 (n, 4), of brightness, contrast, saturation (1 is none) and hue (0).
        interpolation: int64 (n,), place among `INTERPOLATIONS`.
    """

    source: Tensor
    initial: Tensor
    box: Tensor
    angle: Tensor
    shear: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    factors: Tensor
    interpolation: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, which: slice | Tensor) -> "PatchParameters":
        """The parameters of some of the patches."""
        return PatchParameters(*(getattr(self, field.name)[which] for field in fields(self)))

    @property
    def cut(self) -> Tensor:
        """The boxes within the photograph, (n, 4)."""
        corner = self.initial[:, :2] + self.box[:, :2]
        return torch.cat([corner, self.box[:, 2:]], dim=1)


def sample_patch_parameters(
    numbers: Iterable[int] | Tensor,
    image_size: tuple[int, int],
    settings: PatchSettings = PUBLISHED_PATCHES,
    seed: int = 0,
    *,
    photographs: int = 1,
) -> PatchParameters:
    """The parameters of patches by their numbers; those of one patch depend on nothing else.

    Args:
        numbers: of the patches, 0 or more, in any order.
        image_size: height and width of the photograph.
        settings: ranges.
        seed: 0 or more.
        photographs: how many of that size there are; each patch comes from one of them.

    Raises:
        ValueError: a photograph whose first square has less than 2 pixels, a negative number, or
            boxes that were not found in `settings.trials` trials, with the share that fitted.
    """
    checks.whole("seed", seed, 0)
    checks.whole("number of photographs", photographs, 1)
    ids = numbers.cpu().numpy() if isinstance(numbers, Tensor) else np.fromiter(numbers, np.int64)
    if len(ids) == 0 or ids.min() < 0:
        raise ValueError("numbers of patches must be 0 or more, and there must be some")
    height, width = first_square(image_size, settings)
    drawn = uniforms(seed, ids, range(TRIALS))

    room = np.array(image_size) - (height, width) + 1
    corner = below(drawn[:, INITIAL : INITIAL + 2], room)
    initial = np.hstack([corner, np.tile([height, width], (len(ids), 1))])
    size = _fitting_boxes(ids, height, width, settings, seed)
    place = below(drawn[:, PLACE : PLACE + 2], np.array([height, width]) - size + 1)

    angle = between(drawn[:, ANGLE], -settings.degrees, settings.degrees)
    shear = np.zeros((len(ids), 2))
    shear[:, 0] = between(drawn[:, SHEAR], -settings.shear, settings.shear)
    strength = np.array(settings.jitter)
    factors = between(drawn[:, FACTORS : FACTORS + 4], -1, 1) * strength + [1, 1, 1, 0]
    if settings.interpolation == "random":
        kernel = below(drawn[:, FILTER], len(INTERPOLATIONS))
    else:
        kernel = np.full(len(ids), INTERPOLATIONS.index(settings.interpolation))
    return PatchParameters(
        source=torch.from_numpy(below(drawn[:, SOURCE], photographs)),
        initial=torch.from_numpy(initial),
        box=torch.from_numpy(np.hstack([place, size])),
        angle=torch.from_numpy(angle),
        shear=torch.from_numpy(shear),
        flip=torch.from_numpy((drawn[:, FLIP] < 0.5) & settings.vertical_flip),
        jitter=torch.from_numpy(drawn[:, JITTER] < settings.jitter_probability),
        order=torch.from_numpy(drawn[:, ORDER : ORDER + 4].argsort(axis=1, kind="stable")),
        factors=torch.from_numpy(factors),
        interpolation=torch.from_numpy(kernel),
    )


def first_square(image_size: tuple[int, int], settings: PatchSettings) -> tuple[int, int]:
    """Height and width of the first crop: a square, or the photograph where there is none.

    Raises:
        ValueError: it has a side of less than 2 pixels.
    """
    height, width = image_size
    if settings.initial_crop is not None:
        height = width = int(settings.initial_crop * min(image_size))
    if min(height, width) < 2:
        share = "" if settings.initial_crop is None else f" {settings.initial_crop:g} of"
        raise ValueError(
            f"the photograph is too small: patches need at least 2 pixels on{share} its shorter "
            f"side; got {image_size[0]}x{image_size[1]}"
        )
    return height, width


def _fitting_boxes(
    ids: np.ndarray, height: int, width: int, settings: PatchSettings, seed: int
) -> np.ndarray:
    """Heights and widths int64 (n, 2): of every patch the first trial that fits in the square."""
    size = np.zeros((len(ids), 2), np.int64)
    left = np.arange(len(ids))
    logs = np.log(settings.aspect)
    smallest, largest = (1 / r for r in settings.inverse_scale)
    tried = 0
    for trial in range(settings.trials):
        slots = range(TRIALS + 2 * trial, TRIALS + 2 * trial + 2)
        drawn = uniforms(seed, ids[left], slots)
        area = height * width * between(drawn[:, 0], smallest, largest)
        aspect = np.exp(between(drawn[:, 1], *logs))
        found = np.rint(np.sqrt(np.stack([area / aspect, area * aspect], axis=1))).astype(np.int64)
        fits = ((found > 0) & (found <= (height, width))).all(axis=1)
        size[left[fits]] = found[fits]
        tried += len(left)
        left = left[~fits]
        if len(left) == 0:
            return size
    share = (len(ids) - len(left)) / tried
    raise ValueError(
        f"no box fitted into {height}x{width} pixels in {settings.trials} trials for {len(left)} "
        f"of {len(ids)} patches ({share:.2%} of the boxes fitted): change aspect or inverse_scale"
    )
