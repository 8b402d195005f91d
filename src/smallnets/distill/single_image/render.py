"""Patches of whole batches: one affine map a patch, read off an antialiased pyramid.

The published generator resamples a patch twice (bicubic resizing, then bilinear rotation and
shear), one picture at a time. Here both are one bilinear reading of a pyramid of the photograph,
whose levels are smaller by sqrt(2) each and made once, by antialiased resizing. Against the
published patches that is two grey levels apart on average, and less than one after averaging 4x4
pixels; `smallnets.distill.single_image.reference` gives them exactly.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets.distill.single_image import colour
from smallnets.distill.single_image.geometry import (
    box_to_photograph,
    leaves,
    patch_to_box,
    photograph_pixels,
    pyramid_level,
    reduction,
)
from smallnets.distill.single_image.parameters import PatchParameters
from smallnets.distill.single_image.settings import (
    INTERPOLATIONS,
    PUBLISHED_PATCHES,
    PatchSettings,
)
from smallnets.distill.single_image.sources import as_photographs

TOGETHER = 128  # patches of 32 pixels that are rendered at a time: what fits into a core's cache
SMALL = 128 * 128  # pixels up to which many photographs are copied for each of their patches


class Pyramid:
    """Photographs at every size that patches ask for, each made when it is first needed.

    Args:
        photographs: uint8 or floating-point in [0, 1], (3, height, width) or (k, 3, height, width).

    Raises:
        ValueError: see `as_photographs`.
    """

    def __init__(self, photographs: Tensor) -> None:
        self.photographs = as_photographs(photographs)
        self.levels: dict[tuple[str, int], Tensor] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photographs."""
        return self.photographs.shape[2], self.photographs.shape[3]

    def level(self, number: int, interpolation: str = "bicubic") -> Tensor:
        """Photographs with sides of sqrt(2)^-number, float32 (k, 3, h, w), grey levels 0 to 255."""
        if number == 0 or interpolation == "nearest":  # the photographs as they are
            number, interpolation = 0, "nearest"
        key = interpolation, number
        if key not in self.levels:
            self.levels[key] = self._made(number, interpolation)
        return self.levels[key]

    def _made(self, number: int, interpolation: str) -> Tensor:
        whole = self.photographs.float()
        if interpolation == "nearest":
            return whole
        small = [max(1, round(side * reduction(number))) for side in self.size]
        return F.interpolate(
            whole, small, mode=interpolation, antialias=True, align_corners=False
        ).clamp_(0, 255)

    def groups(self, level: Tensor, source: Tensor, interpolation: Tensor) -> Tensor:
        """Numbers (n,) that are equal for patches which are read off one picture.

        Args:
            level: of the pyramid, int64 (n,).
            source: which photograph, int64 (n,).
            interpolation: place among `INTERPOLATIONS`, int64 (n,).
        """
        number = level * len(INTERPOLATIONS) + interpolation
        return number * len(self.photographs) + source if self._apart else number

    def read(self, places: Tensor, group: int, source: Tensor) -> Tensor:
        """Pixels of patches of one group, float32 (n, 3, size, size), grey levels 0 to 255.

        Args:
            places: in the photograph, as `grid_sample` counts them, (n, size, size, 2).
            group: see `groups`.
            source: which photograph, int64 (n,).
        """
        number, which = divmod(group, len(self.photographs)) if self._apart else (group, 0)
        level, kernel = divmod(number, len(INTERPOLATIONS))
        name = INTERPOLATIONS[kernel]
        images = self.level(level, name)
        if self._apart or len(images) == 1:
            images = images[which].expand(len(places), -1, -1, -1)  # no copy
        else:
            images = images[source]
        mode = "nearest" if name == "nearest" else "bilinear"
        return F.grid_sample(images, places, mode, padding_mode="border", align_corners=False)

    @property
    def _apart(self) -> bool:
        """Whether patches of each photograph are read together, so that none is copied."""
        return len(self.photographs) > 1 and self.size[0] * self.size[1] > SMALL


def render_patches(
    image: Tensor | Pyramid,
    parameters: PatchParameters,
    settings: PatchSettings = PUBLISHED_PATCHES,
) -> Tensor:
    """Patches by their parameters: uint8 (n, channels, size, size), on the photograph's device.

    A patch does not depend on the others of its batch, bit for bit (on one device).

    Args:
        image: one photograph (3, H, W), several (k, 3, H, W), or a `Pyramid` of them, which keeps
            what further batches need.
        parameters: from `sample_patch_parameters`.
        settings: with which they were drawn.

    Raises:
        ValueError: a photograph that is none, see `as_photographs`.
    """
    pyramid = image if isinstance(image, Pyramid) else Pyramid(image)
    side = settings.resized
    in_box = patch_to_box(parameters, settings)
    level = pyramid_level(photograph_pixels(parameters.cut, side))
    group = pyramid.groups(level, parameters.source, parameters.interpolation)
    # Patches that take the same steps lie together; so most steps are slices, without a copy.
    order = (group + (int(group.max()) + 1) * parameters.jitter).argsort(stable=True)
    drawn, in_box, group = parameters[order], in_box[order], group[order]
    out = torch.empty(
        len(order), settings.channels, settings.size, settings.size,
        dtype=torch.uint8, device=pyramid.photographs.device,
    )  # fmt: skip
    together = max(1, TOGETHER * 32**2 // settings.size**2)
    for start in range(0, len(order), together):
        part = slice(start, start + together)
        out[part] = _rendered(pyramid, drawn[part], in_box[part], group[part], settings)
    return out.index_select(0, order.argsort().to(out.device))


def _rendered(
    pyramid: Pyramid,
    drawn: PatchParameters,
    in_box: Tensor,
    group: Tensor,
    settings: PatchSettings,
) -> Tensor:
    """Patches (n, channels, size, size) in [0, 255], whose `group` ascends."""
    device = pyramid.photographs.device
    matrix = box_to_photograph(drawn.cut, settings.resized, in_box)
    places = places_in(matrix.to(device), settings.size, pyramid.size)
    source = drawn.source.to(device)
    names, counts = (each.tolist() for each in group.unique_consecutive(return_counts=True))
    read = [
        pyramid.read(where, name, which)
        for name, where, which in zip(
            names, places.split(counts), source.split(counts), strict=True
        )
    ]
    patches = read[0] if len(read) == 1 else torch.cat(read)
    outside = leaves(in_box, settings.size, settings.resized).nonzero()[:, 0]
    for place, mask in zip(
        outside.tolist(), _beyond(in_box[outside].to(device), settings), strict=True
    ):
        patches[place].masked_fill_(mask, settings.fill)
    plain = int((~drawn.jitter).sum())  # which come first
    if plain < len(drawn):
        factors, steps = drawn.factors[plain:].to(device), drawn.order[plain:].to(device)
        patches[plain:] = colour.jitter(patches[plain:], factors, steps)
    if settings.channels == 1:
        patches = colour.grey(patches)[:, None]
    return patches.round_().clamp_(0, 255)


def places_in(matrix: Tensor, size: int, photograph: tuple[int, int]) -> Tensor:
    """Places in the photograph as `grid_sample` counts them, float32 (n, size, size, 2)."""
    scale = matrix.new_tensor([2 / photograph[1], 2 / photograph[0]])
    matrix = matrix * scale[:, None]
    matrix[:, :, 2] -= 1
    out = matrix.new_empty(len(matrix), size, size, 2, dtype=torch.float32)
    for axis in range(2):
        across, down = _along(matrix[:, axis], size)
        torch.add(across[:, None, :], down[:, :, None], out=out[..., axis])
    return out


def _along(row: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What each column and each row of a patch adds to one coordinate, float32 (n, size) each."""
    centres = torch.arange(size, device=row.device, dtype=row.dtype) + 0.5
    across = row[:, :1] * centres
    down = row[:, 1:2] * centres + row[:, 2:]
    return across.float(), down.float()


def _beyond(matrix: Tensor, settings: PatchSettings) -> Tensor:
    """Which pixels of patches lie outside the resized box, bool (n, size, size)."""
    outside = []
    for axis in range(2):
        across, down = _along(matrix[:, axis], settings.size)
        place = across[:, None, :] + down[:, :, None]
        outside.append((place < 0) | (place >= settings.resized))
    return outside[0] | outside[1]
