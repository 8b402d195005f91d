"""The published way, one picture at a time with PIL: the same bits as the official generator.

It is what the batched way is tested and raced against; `render_patches` is some ten times faster.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smallnets.distill.single_image.parameters import PatchParameters
from smallnets.distill.single_image.settings import (
    INTERPOLATIONS,
    PUBLISHED_PATCHES,
    PatchSettings,
)
from smallnets.distill.single_image.sources import as_photographs


class ReferencePatch(NamedTuple):
    """One patch after each of its steps, uint8 (channels, side, side)."""

    resized: Tensor  # the box at int(sqrt(2) size) pixels
    middle: Tensor  # rotated, sheared, flipped, and the middle cut out
    patch: Tensor  # with its colours changed


def render_patch_reference(
    image: Tensor,
    parameters: PatchParameters,
    which: int = 0,
    settings: PatchSettings = PUBLISHED_PATCHES,
) -> ReferencePatch:
    """One patch as the official code makes it from the same random numbers, bit for bit.

    Args:
        image: one photograph or several, see `as_photographs`.
        parameters: of n patches.
        which: of them, to be made.
        settings: with which they were drawn.
    """
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as TF

    one = parameters[which : which + 1]
    pixels = as_photographs(image)[int(one.source)].cpu().permute(1, 2, 0).numpy()
    filters = {name: InterpolationMode[name.upper()] for name in INTERPOLATIONS}
    interpolation = filters[INTERPOLATIONS[int(one.interpolation)]]
    patch = TF.crop(Image.fromarray(np.ascontiguousarray(pixels)), *one.initial[0].tolist())
    side = settings.resized
    patch = TF.resized_crop(patch, *one.box[0].tolist(), [side, side], interpolation)
    resized = patch
    if float(one.angle) or bool(one.shear.any()):
        patch = TF.affine(
            patch, float(one.angle), [0, 0], 1.0, one.shear[0].tolist(),
            InterpolationMode.BILINEAR, [settings.fill] * 3,
        )  # fmt: skip
    if bool(one.flip):
        patch = TF.vflip(patch)
    patch = middle = TF.center_crop(patch, [settings.size, settings.size])
    if bool(one.jitter):
        changes = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
        for step in one.order[0].tolist():
            patch = changes[step](patch, float(one.factors[0, step]))
    if settings.channels == 1:
        resized, middle, patch = (picture.convert("L") for picture in (resized, middle, patch))
    return ReferencePatch(*(_tensor(picture) for picture in (resized, middle, patch)))


def jpeg_round_trip(patches: Tensor, quality: int = 75) -> Tensor:
    """Patches as they come back from JPEG files, in which the published pool is kept.

    Args:
        patches: uint8 (n, channels, height, width) with 1 or 3 channels.
        quality: 1 to 95; 75 is PIL's, and the published pool's.

    Raises:
        ValueError: a quality outside 1 to 95, or tensors of another kind.
    """
    from io import BytesIO

    from PIL import Image

    if not 1 <= quality <= 95:
        raise ValueError(f"quality must be between 1 and 95; got {quality!r}")
    if patches.dtype != torch.uint8 or patches.dim() != 4 or patches.shape[1] not in (1, 3):
        raise ValueError(
            "patches must be uint8 (n, channels, height, width) with 1 or 3 channels; "
            f"got {patches.dtype} {tuple(patches.shape)}"
        )
    out = torch.empty_like(patches)
    for place, patch in enumerate(patches.cpu()):
        pixels = patch[0] if len(patch) == 1 else patch.permute(1, 2, 0)
        with BytesIO() as file:
            Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(
                file, "JPEG", quality=quality
            )
            with Image.open(file) as picture:
                out[place] = _tensor(picture)
    return out


def _tensor(picture: object) -> Tensor:
    """uint8 (channels, height, width) of a PIL picture."""
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()
