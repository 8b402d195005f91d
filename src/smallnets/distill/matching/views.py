"""Views of whole batches: what the teacher sees and what the student sees.

A view is a box cut out of each image and brought to a resolution. Boxes are whole numbers (batch,
4): top, left, height, width. The ways to draw them:

- "rs": the whole image,
- "cc": the middle of it,
- "rc": a window of that size anywhere (a mild random crop),
- "ic": an inception crop, with an area from 5 % to 100 % of the image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smallnets import checks

CROPS = ("rs", "cc", "rc", "ic")
GEOMETRIES = ("tf", "torchvision")
ATTEMPTS = 16


@dataclass(frozen=True)
class ViewPairing:
    """How teacher and student look at an image (the paper's figure 2 and section 3).

    Attributes:
        teacher, student: the crop that each gets, see above; "ic_ens" is the mean prediction over
            many inception crops.
        relation: "same" gives both one tensor, "independent" draws twice, "fixed" asks the teacher
            once, before the training.
        mixed: whether the batch is mixed (equation 1).
    """

    teacher: str
    student: str
    relation: str
    mixed: bool = False


VIEWS = {
    "fix/rs": ViewPairing("rs", "rs", "fixed"),
    "fix/cc": ViewPairing("cc", "rc", "fixed"),
    "fix/ic_ens": ViewPairing("ic_ens", "ic", "fixed"),
    "ind/rc": ViewPairing("rc", "rc", "independent"),
    "ind/ic": ViewPairing("ic", "ic", "independent"),
    "same/rc": ViewPairing("rc", "rc", "same"),
    "same/ic": ViewPairing("ic", "ic", "same"),
    "mix": ViewPairing("ic", "ic", "same", mixed=True),
    "mix/cc": ViewPairing("cc", "ic", "independent", mixed=True),
}


def sample_boxes(
    crop: str,
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    side: float = 0.875,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    geometry: str = "tf",
) -> Tensor:
    """One box for each of `count` images of a size: int64 (count, 4), top, left, height, width.

    Args:
        crop: "rs", "cc", "rc" or "ic".
        count: how many.
        height, width: of the images.
        generator: random numbers; the result is on its device.
        side: of "cc" and "rc", as a share of the image's.
        area, aspect: range of an "ic" box's share of the image, and of its width over height.
        geometry: of "ic": "tf" draws the height, "torchvision" the area, see
            `sample_inception_boxes`.
    """
    checks.one_of("crop", crop, CROPS)
    checks.between("side", side, 1e-6, 1)
    device = generator.device
    if crop == "ic":
        return sample_inception_boxes(
            count, height, width, generator, area=area, aspect=aspect, geometry=geometry
        )
    share = 1.0 if crop == "rs" else side
    size = torch.tensor([max(1, round(share * height)), max(1, round(share * width))])
    room = torch.tensor([height, width]) - size
    corner = (room // 2).to(device).expand(count, 2)
    if crop == "rc":
        drawn = torch.rand(count, 2, generator=generator, device=device)
        corner = (drawn * (room.to(device) + 1)).long()
    return torch.cat([corner, size.to(device).expand(count, 2)], dim=1)


def sample_inception_boxes(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    geometry: str = "tf",
) -> Tensor:
    """Boxes of random area, shape and place, int64 (count, 4).

    The published code draws the aspect ratio uniformly and then the *height*, not the area,
    uniformly between what the areas allow; small boxes are therefore more frequent than with
    torchvision's rule, which draws the area uniformly and the logarithm of the aspect ratio.
    """
    checks.one_of("geometry", geometry, GEOMETRIES)
    checks.between("area[0]", area[0], 0, area[1])
    checks.between("area[1]", area[1], area[0], 1)
    checks.above("aspect[0]", aspect[0], 0)
    checks.between("aspect[1]", aspect[1], aspect[0], 1e6)
    device = generator.device
    whole = float(height * width)

    def uniform(low: Tensor | float, high: Tensor | float) -> Tensor:
        drawn = torch.rand(count, ATTEMPTS, generator=generator, device=device)
        return low + (high - low) * drawn

    if geometry == "tf":
        ratio = uniform(*aspect)
        lowest = (area[0] * whole / ratio).sqrt().round()
        highest = (area[1] * whole / ratio).sqrt().round()
        highest = torch.minimum(highest, torch.full_like(ratio, height))
        # A height whose width would not fit is replaced by the largest that does.
        over = (highest * ratio).round() > width
        highest = torch.where(over, ((width + 0.4999) / ratio).floor(), highest)
        lowest = torch.minimum(lowest, highest)
        high = (lowest + (uniform(0.0, 1.0) * (highest - lowest + 1)).floor()).clamp_min(1)
        high = torch.minimum(high, highest.clamp_min(1))
        wide = (high * ratio).round()
    else:
        ratio = uniform(torch.tensor(aspect[0]).log(), torch.tensor(aspect[1]).log()).exp()
        wanted = uniform(area[0] * whole, area[1] * whole)
        high, wide = (wanted / ratio).sqrt().round(), (wanted * ratio).sqrt().round()
    share = high * wide / whole
    fits = (high >= 1) & (wide >= 1) & (high <= height) & (wide <= width)
    if geometry == "tf":
        fits &= (share >= area[0]) & (share <= area[1])
    # The first attempt that fits; where none does, the whole image.
    first = fits.byte().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    size = torch.stack([high.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]], dim=1).long()
    full = torch.tensor([height, width], device=device)
    size = torch.where(found[:, None], size, full)
    place = torch.rand(count, 2, generator=generator, device=device)
    corner = torch.minimum((place * (full - size + 1)).long(), full - size)
    return torch.cat([corner, size], dim=1)


def crop_and_resize(
    images: Tensor, where: Tensor, resolution: int, mirrored: Tensor | None = None
) -> Tensor:
    """Each image's box, resized bilinearly without antialiasing.

    Done as two matrix products an image, whose weights are those of bilinear interpolation.

    Args:
        images: floating-point (batch, channels, height, width).
        where: boxes (batch, 4), or one (4,) for all.
        resolution: height and width of the result.
        mirrored: bool (batch,): which images to flip from left to right.

    Returns:
        (batch, channels, resolution, resolution) of the images' type.

    Raises:
        ValueError: images that are not floating-point (batch, channels, height, width), boxes that
            do not lie in them, or a resolution below 1.
    """
    checks.whole("resolution", resolution, 1)
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images must be floating-point (batch, channels, height, width); "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    height, width = images.shape[2:]
    where = where.expand(len(images), 4)
    end = where[:, :2] + where[:, 2:]
    if where.min() < 0 or where[:, 2:].min() < 1 or (end > end.new_tensor([height, width])).any():
        raise ValueError(f"boxes must lie in images of {height}x{width}; got others")
    rows = interpolation(where[:, 0], where[:, 2], height, resolution)
    columns = interpolation(where[:, 1], where[:, 3], width, resolution)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    rows, columns = rows.to(images.dtype), columns.to(images.dtype)
    with torch.autocast(images.device.type, enabled=False):
        return rows[:, None] @ images @ columns.transpose(1, 2)[:, None]


def interpolation(start: Tensor, length: Tensor, size: int, resolution: int) -> Tensor:
    """Weights (batch, resolution, size) that read `resolution` points evenly off a part of a line.

    Pixels have their centres at half numbers, and points beyond the outermost centres of the part
    take the outermost pixel, as if the part had been cut out before.
    """
    steps = torch.arange(resolution, device=start.device) + 0.5
    place = steps * (length[:, None] / resolution) - 0.5
    last = (length - 1)[:, None].to(place.dtype)
    place = torch.minimum(place.clamp_min(0), last) + start[:, None]
    pixels = torch.arange(size, device=start.device)
    return (1 - (place[:, :, None] - pixels).abs()).clamp_min(0)


def resize_area(images: Tensor, height: int, width: int) -> Tensor:
    """Images (batch, channels, H, W) made smaller by averaging over areas, fractions of pixels
    included.
    """
    rows, columns = (
        _overlap(old, checks.whole("size", new, 1)).to(images)
        for old, new in zip(images.shape[2:], (height, width), strict=True)
    )
    return rows @ images @ columns.T


def _overlap(old: int, new: int) -> Tensor:
    """Share (new, old) of each new pixel that each old pixel covers."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    pixels = torch.arange(old, dtype=torch.float64)
    right = torch.minimum(edges[1:, None], pixels + 1)
    return (right - torch.maximum(edges[:-1, None], pixels)).clamp_min(0) * new / old


def evaluation_view(images: Tensor, resolution: int, side: float = 1.0) -> Tensor:
    """What a trained network is tested on: resized by areas, and the middle cut out.

    Args:
        images: floating-point (batch, channels, height, width).
        resolution: height and width of the result.
        side: of the middle, as a share of the image's side; the published code resizes to 160 and
            cuts 128, or to 256 and cuts 224 (0.8 and 0.875). 1 takes the whole image.
    """
    checks.between("side", side, 1e-6, 1)
    whole = round(resolution / side)
    shorter = min(images.shape[2:])
    height, width = (max(resolution, round(x * whole / shorter)) for x in images.shape[2:])
    resized = images
    if (height, width) != tuple(images.shape[2:]):
        resized = resize_area(images, height, width)
    top, left = (height - resolution) // 2, (width - resolution) // 2
    return resized[:, :, top : top + resolution, left : left + resolution]
