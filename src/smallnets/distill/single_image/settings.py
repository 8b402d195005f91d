"""What the patch generator is told: the published switches, and their defaults."""

import math
from dataclasses import dataclass

from smallnets import checks

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@dataclass(frozen=True)
class PatchSettings:
    """How patches are cut out of a photograph (the official generator's options).

    Attributes:
        size: height and width of a patch, in pixels: 32 for CIFAR, 256 for ImageNet.
        initial_crop: side of the first square, as a share of the photograph's shorter side; None
            draws the boxes from the whole photograph.
        degrees: largest rotation to either side.
        shear: largest horizontal shear to either side, in degrees.
        inverse_scale: the box covers 1/r0 to 1/r1 of the first square, uniform in the *area*.
        aspect: range of the box's width over its height; the logarithm is uniform.
        vertical_flip: whether half of the patches are turned upside down.
        jitter: largest changes of brightness, contrast, saturation (factors 1 +- x) and hue (shift,
            in turns).
        jitter_probability: share of the patches whose colours are changed.
        fill: grey level, 0 to 255, of what lies outside the box after rotation and shear.
        interpolation: of the box's resizing, one of `INTERPOLATIONS`, or "random" for one of the
            three a patch. (The published switch for that applies all three in a row, or none.)
        channels: 3, or 1 for grey patches.
        trials: boxes drawn for a patch before giving up. A box that does not fit in the square is
            drawn anew; there is no other way out, such as the whole square.

    Raises:
        ValueError: a field is out of range; the message names it, what was given and what is
            allowed.
    """

    size: int = 32
    initial_crop: float | None = 0.5
    degrees: float = 30.0
    shear: float = 30.0
    inverse_scale: tuple[float, float] = (500.0, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    vertical_flip: bool = False
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.5
    fill: float = 0.0
    interpolation: str = "bicubic"
    channels: int = 3
    trials: int = 1000

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("size", self.size, 1)
        if self.initial_crop is not None:
            checks.above("initial_crop", self.initial_crop, 0)
            checks.between("initial_crop", self.initial_crop, 0, 1)
        checks.between("degrees", self.degrees, 0, 180)
        checks.between("shear", self.shear, 0, 90)
        if self.shear == 90:
            raise ValueError("shear must be less than 90; got 90")
        if len(self.inverse_scale) != 2 or not self.inverse_scale[0] >= self.inverse_scale[1] >= 1:
            raise ValueError(
                "inverse_scale must be (r0, r1) with r0 >= r1 >= 1, for areas from 1/r0 to 1/r1 of "
                f"the square; got {self.inverse_scale}"
            )
        checks.at_least("inverse_scale", self.inverse_scale[0], 1)
        low, high = self.aspect
        checks.between("upper end of aspect", high, checks.above("aspect", low, 0), 1e6)
        check_jitter(self.jitter)
        checks.between("jitter_probability", self.jitter_probability, 0, 1)
        checks.between("fill", self.fill, 0, 255)
        checks.one_of("interpolation", self.interpolation, (*INTERPOLATIONS, "random"))
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3; got {self.channels!r}")
        checks.whole("trials", self.trials, 1)

    @property
    def resized(self) -> int:
        """Side of the resized box, int(sqrt(2) size): a pure rotation by 30 degrees leaves the
        middle of `size` pixels without fill.
        """
        return int(math.sqrt(2) * self.size)

    @property
    def margin(self) -> int:
        """Where the middle begins in the resized box; halves go to the even number."""
        return round((self.resized - self.size) / 2)


def check_jitter(jitter: tuple[float, ...]) -> None:
    """Check largest changes of brightness, contrast, saturation (0 to 1) and hue (0 to 0.5).

    Raises:
        ValueError: there are not four, or one is out of range.
    """
    if len(jitter) != 4:
        raise ValueError(f"jitter must be (brightness, contrast, saturation, hue); got {jitter}")
    names = ("brightness", "contrast", "saturation", "hue")
    for name, most, value in zip(names, (1, 1, 1, 0.5), jitter, strict=True):
        checks.between(f"jitter of {name}", value, 0, most)


PUBLISHED_PATCHES = PatchSettings()  # for CIFAR
PUBLISHED_CLIPS = PatchSettings(size=160)  # for video, of which only boxes and colours act
