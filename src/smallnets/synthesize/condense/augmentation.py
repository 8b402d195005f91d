"""Differentiable siamese augmentation (Zhao & Bilen, ICML 2021): one family of transforms a batch.

Parameters are drawn once and given to both batches, so that real and synthetic images are changed
in the same way; the gradient flows through every transform to the pixels. In the official code
both batches re-seed the global generator instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")
FULL = "_".join(FAMILIES)  # CIFAR, Fashion-MNIST, TinyImageNet
DIGITS = FULL.replace("_flip", "")  # MNIST, SVHN, and all characters


@dataclass(frozen=True)
class DSARanges:
    """From what parameters are drawn (the official defaults).

    Attributes:
        brightness: width of the shift, uniform in +- half of it, in normalised units.
        saturation: largest factor, uniform from 0.
        contrast: factors are uniform in `contrast` .. 1 + `contrast`.
        crop: largest shift, as a share of the side.
        cutout: side of the rectangle, as a share of the image's.
        flip: probability.
        scale: factors of the sampling grid are uniform in 1 / `scale` .. `scale`.
        rotate: largest angle in degrees.

    Raises:
        ValueError: a field is out of range.
    """

    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    cutout: float = 0.5
    flip: float = 0.5
    scale: float = 1.2
    rotate: float = 15.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("brightness", "saturation", "contrast"):
            checks.at_least(name, getattr(self, name), 0)
        for name in ("crop", "cutout", "flip"):
            checks.between(name, getattr(self, name), 0, 1)
        checks.at_least("scale", self.scale, 1)
        checks.between("rotate", self.rotate, 0, 180)


@dataclass(frozen=True, eq=False)
class DSAParams:
    """One family, and its parameters for all images together or for each.

    Attributes:
        family: one of `FAMILIES`.
        values: float32 (1, k), shared, or (n, k), one row an image. The columns are: color:
            brightness, saturation, contrast; crop: dy, dx; cutout: cy, cx, height, width; flip: 0
            or 1; scale: sx, sy; rotate: the angle in radians.
    """

    family: str
    values: Tensor

    def __getitem__(self, which: Tensor | slice) -> "DSAParams":
        """The parameters of some of the images; shared ones stay."""
        return self if len(self.values) == 1 else DSAParams(self.family, self.values[which])


def check_strategy(strategy: str | None) -> tuple[str, ...]:
    """The families of a strategy such as "color_crop_cutout"; None is no augmentation.

    Raises:
        ValueError: an unknown or empty family, or one that is named twice.
    """
    if strategy is None:
        return ()
    families = tuple(_text(strategy).split("_"))
    if "" in families:
        raise ValueError(f"strategy must not have an empty family; got {strategy!r}")
    for family in families:
        checks.one_of("every family of strategy", family, FAMILIES)
    if len(set(families)) < len(families):
        raise ValueError(f"strategy must name every family once; got {strategy!r}")
    return families


def _text(strategy: object) -> str:
    """The strategy, if it is text."""
    if not isinstance(strategy, str):
        raise ValueError(f"strategy must be a text such as {FULL!r}, or None; got {strategy!r}")
    return strategy


def sample_dsa(
    strategy: str | None,
    n: int | None,
    size: tuple[int, int],
    generator: torch.Generator,
    ranges: DSARanges = DSARanges(),
) -> DSAParams | None:
    """Draw one family uniformly, then its parameters.

    Args:
        strategy: families joined by "_"; None draws nothing and gives None.
        n: images, each with its own parameters, as in training on a set; None is one parameter for
            all, as in matching.
        size: height and width of the images.
        generator: of the random numbers, on the CPU.
        ranges: of the parameters.

    Raises:
        ValueError: see `check_strategy`; or n below 1.
    """
    families = check_strategy(strategy)
    if not families:
        return None
    rows = 1 if n is None else checks.whole("n", n, 1)
    family = families[int(torch.randint(len(families), (), generator=generator))]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, generator=generator)

    def integer(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (rows,), generator=generator).float()

    if family == "color":
        columns = [
            uniform(-ranges.brightness / 2, ranges.brightness / 2),
            uniform(0, ranges.saturation),
            uniform(ranges.contrast, 1 + ranges.contrast),
        ]
    elif family == "crop":
        most = [int(ranges.crop * side + 0.5) for side in size]
        columns = [integer(-k, k) for k in most]
    elif family == "cutout":
        cut = [int(ranges.cutout * side + 0.5) for side in size]
        centres = [integer(0, s - h % 2) for s, h in zip(size, cut, strict=True)]
        columns = [*centres, *(torch.full((rows,), float(h)) for h in cut)]
    elif family == "flip":
        columns = [(uniform(0, 1) < ranges.flip).float()]
    elif family == "scale":
        columns = [uniform(1 / ranges.scale, ranges.scale) for _ in "xy"]
    else:
        most_angle = ranges.rotate * torch.pi / 180
        columns = [uniform(-most_angle, most_angle)]
    return DSAParams(family, torch.stack(columns, dim=1))


def apply_dsa(x: Tensor, params: DSAParams | None, align_corners: bool = False) -> Tensor:
    """Change images as `params` say; differentiable in x.

    Args:
        x: normalised images (n, channels, height, width); zero, which enters from outside, is the
            data's mean.
        params: None changes nothing.
        align_corners: whether -1 and 1 are the centres of the outer pixels in scale and rotate, as
            in PyTorch 1.2, or their outer edges, as today.

    Raises:
        ValueError: images of another form, or parameters for another number of them.
    """
    if params is None:
        return x
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            "images must be floating-point (n, channels, height, width); "
            f"got {x.dtype} {tuple(x.shape)}"
        )
    values = params.values
    if len(values) not in (1, len(x)):
        raise ValueError(f"params must be for 1 or {len(x)} images; got {len(values)}")
    transform = TRANSFORMS[checks.one_of("family", params.family, FAMILIES)]
    return transform(x, values.to(x.device, x.dtype), align_corners)


def brightness(x: Tensor, shift: Tensor) -> Tensor:
    """x + b; shift (1 or n,)."""
    return x + _each(shift)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """m + s (x - m) with the mean m over channels at every pixel; the identity for one channel."""
    return _spread(x, factor, (1,)) if x.shape[1] > 1 else x


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """m + c (x - m) with the mean m over channels and pixels of every image."""
    return _spread(x, factor, (1, 2, 3))


def color(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """Brightness, then saturation, then contrast; values (1 or n, 3)."""
    return contrast(saturation(brightness(x, values[:, 0]), values[:, 1]), values[:, 2])


def crop(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """out[r, q] = x[r + dy, q + dx], zero outside; values (1 or n, 2) whole numbers."""
    height, width = x.shape[2:]
    rows, inside_rows = _shifted(values[:, 0], height)
    columns, inside_columns = _shifted(values[:, 1], width)
    if len(values) == 1:
        moved = x[:, :, rows[0]][..., columns[0]]
    else:
        image = torch.arange(len(x), device=x.device)[:, None, None]
        moved = x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None]]
        moved = moved.permute(0, 3, 1, 2)
    return moved * (inside_rows[:, None, :, None] & inside_columns[:, None, None, :])


def cutout(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """Zeros in a rectangle around (cy, cx), clipped at the border; values (1 or n, 4)."""
    inside = []
    for centre, side, length in zip((0, 1), (2, 3), x.shape[2:], strict=True):
        first = values[:, centre] - values[:, side].div(2, rounding_mode="floor")
        place = torch.arange(length, device=x.device)
        inside.append((place >= first[:, None]) & (place < (first + values[:, side])[:, None]))
    return x * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


def flip(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """Left-right where values (1 or n, 1) are 1."""
    return torch.where(_each(values[:, 0]) > 0.5, x.flip(3), x)


def scale(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """The sampling grid times (sx, sy): values (1 or n, 2) below 1 enlarge."""
    matrices = torch.diag_embed(values)
    return _sampled(x, matrices, align_corners)


def rotate(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """The sampling grid turned by the angle, values (1 or n, 1), in normalised coordinates."""
    cos, sin = values[:, 0].cos(), values[:, 0].sin()
    matrices = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    return _sampled(x, matrices, align_corners)


TRANSFORMS: dict[str, Callable[[Tensor, Tensor, bool], Tensor]] = {
    "color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate,
}  # fmt: skip


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _spread(x: Tensor, factor: Tensor, over: tuple[int, ...]) -> Tensor:
    mean = x.mean(over, keepdim=True)
    return mean + _each(factor) * (x - mean)


def _shifted(shift: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Places (1 or n, side) that are read, and whether they are inside."""
    places = torch.arange(side, device=shift.device) + shift.long()[:, None]
    return places.clamp(0, side - 1), (places >= 0) & (places < side)


def _sampled(x: Tensor, matrices: Tensor, align_corners: bool) -> Tensor:
    """Bilinear samples at `matrices` (1 or n, 2, 2) times the grid, zeros outside."""
    theta = F.pad(matrices, (0, 1))
    grid = F.affine_grid(theta, [len(theta), *x.shape[1:]], align_corners=align_corners)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=align_corners)
