"""Fake video: a slow movement of the camera over one photograph (section 3.6).

A clip has one first square, one change of colours, and two boxes in that square; its frames see the
boxes between these two, interpolated linearly. There is no rotation and no shear.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.distill.single_image import colour
from smallnets.distill.single_image.geometry import (
    box_to_photograph,
    photograph_pixels,
    pyramid_level,
)
from smallnets.distill.single_image.parameters import PatchParameters
from smallnets.distill.single_image.render import TOGETHER, Pyramid, places_in
from smallnets.distill.single_image.settings import (
    INTERPOLATIONS,
    PUBLISHED_CLIPS,
    PatchSettings,
)
from smallnets.distill.single_image.sources import as_photographs
from smallnets.distill.single_image.streams import PatchGenerator


def interpolate_boxes(first: Tensor, last: Tensor, frames: int) -> Tensor:
    """Boxes between two boxes, both included: (..., 4) each -> float64 (..., frames, 4).

    Raises:
        ValueError: fewer than two frames, or boxes of different shapes.
    """
    checks.whole("frames", frames, 2)
    if first.shape != last.shape or first.shape[-1:] != (4,):
        raise ValueError(
            "boxes must be (..., 4) of one shape: top, left, height, width; "
            f"got {tuple(first.shape)} and {tuple(last.shape)}"
        )
    steps = torch.linspace(0, 1, frames, dtype=torch.float64, device=first.device)[:, None]
    begin, end = first.double()[..., None, :], last.double()[..., None, :]
    return begin + (end - begin) * steps


def fake_clip(
    image: Tensor | Pyramid, first: Tensor, last: Tensor, frames: int = 16, size: int = 160
) -> Tensor:
    """Clips from one box of a photograph to another: uint8 (frames, 3, size, size), or for n pairs
    of boxes (n, frames, 3, size, size).

    Args:
        image: one photograph (3, H, W), or its `Pyramid`.
        first, last: boxes (4,) or (n, 4) in the photograph: top, left, height, width.
        frames: 2 or more.
        size: of a frame.

    Raises:
        ValueError: boxes outside the photograph or without area, or see `interpolate_boxes`.
    """
    checks.whole("size", size, 1)
    pyramid = image if isinstance(image, Pyramid) else Pyramid(image)
    boxes = interpolate_boxes(first, last, frames)
    flat = boxes.reshape(-1, 4)
    end = flat[:, :2] + flat[:, 2:]
    if (
        flat[:, :2].min() < 0
        or flat[:, 2:].min() <= 0
        or (end > end.new_tensor(pyramid.size)).any()
    ):
        raise ValueError(
            f"boxes must lie in the photograph of {pyramid.size[0]}x{pyramid.size[1]} and have an "
            "area; got others"
        )
    parts = [
        _frames(pyramid, part, torch.zeros(len(part), dtype=torch.int64), size)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in flat.split(_together(size))
    ]
    pixels = torch.cat(parts)
    return pixels.reshape(*boxes.shape[:-1], *pixels.shape[1:])


def fake_clip_reference(
    image: Tensor, first: Tensor, last: Tensor, frames: int = 16, size: int = 160
) -> Tensor:
    """The published way with PIL, for one pair of boxes: uint8 (frames, 3, size, size), bit for
    bit. PIL rounds the boxes to whole pixels.
    """
    from PIL import Image

    pixels = as_photographs(image)[0].cpu().permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels)
    out = []
    for top, left, height, width in interpolate_boxes(first, last, frames).tolist():
        part = picture.crop((left, top, left + width, top + height))  # type: ignore[arg-type]
        out.append(np.array(part.resize((size, size), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()


class ClipGenerator:
    """Fake clips of one photograph, or of several of one size, by their numbers, as batches of a
    training.

    Args:
        image: see `Pyramid`.
        settings: of the boxes and colours; rotation, shear and flip do not act.
        frames: of a clip; 16 as published.
        seed: another seed gives other clips.

    Raises:
        ValueError: fewer than two frames, or see `PatchGenerator`.
    """

    def __init__(
        self,
        image: Tensor,
        settings: PatchSettings = PUBLISHED_CLIPS,
        frames: int = 16,
        seed: int = 0,
    ) -> None:
        self.frames = checks.whole("frames", frames, 2)
        self.patches = PatchGenerator(image, settings, seed)

    @property
    def key(self) -> str:
        """A text that changes when any clip would."""
        return f"clips of {self.frames} frames, {self.patches.key}"

    def parameters(self, numbers: Sequence[int] | range | Tensor) -> tuple[PatchParameters, Tensor]:
        """What was drawn for clips, and the boxes of their frames in the photograph (n, frames, 4).

        The first box of clip k is that of patch 2k, the last that of patch 2k + 1, in the first
        square of patch 2k.
        """
        chosen = numbers.cpu() if isinstance(numbers, Tensor) else torch.as_tensor(list(numbers))
        begin, end = (self.patches.parameters(2 * chosen + which) for which in (0, 1))
        end = replace(end, initial=begin.initial)
        return begin, interpolate_boxes(begin.cut, end.cut, self.frames)

    def take(self, numbers: Sequence[int] | range | Tensor) -> Tensor:
        """Clips uint8 (n, channels, frames, size, size), as video networks take them."""
        drawn, boxes = self.parameters(numbers)
        together = max(1, _together(self.patches.settings.size) // self.frames)
        parts = [slice(start, start + together) for start in range(0, len(boxes), together)]
        return torch.cat([self._rendered(drawn[part], boxes[part]) for part in parts])

    def _rendered(self, drawn: PatchParameters, boxes: Tensor) -> Tensor:
        settings = self.patches.settings
        source = drawn.source.repeat_interleave(self.frames)
        clips = _frames(self.patches.pyramid, boxes.reshape(-1, 4), source, settings.size)
        # The frames of a clip side by side are one image, whose colours change as one.
        wide = clips.unflatten(0, (len(boxes), self.frames)).transpose(1, 2).flatten(2, 3)
        changed = drawn.jitter.nonzero()[:, 0].to(wide.device)
        if len(changed):
            factors, order = drawn.factors[drawn.jitter], drawn.order[drawn.jitter]
            wide[changed] = colour.jitter(
                wide[changed], factors.to(wide.device), order.to(wide.device)
            )
        if settings.channels == 1:
            wide = colour.grey(wide)[:, None]
        wide = wide.round_().clamp_(0, 255).to(torch.uint8)
        return wide.unflatten(2, (self.frames, settings.size))


def _together(size: int) -> int:
    """Frames that are read at a time: as many as `render_patches` reads, at twice the size."""
    return max(1, TOGETHER * 32**2 // (2 * size) ** 2)


def _frames(pyramid: Pyramid, boxes: Tensor, source: Tensor, size: int) -> Tensor:
    """Boxes (n, 4) of the photographs `source` (n,) at size x size, float32 (n, 3, size, size).

    Frames are resampled once in the published code, and patches twice. So a frame is sharper than a
    reading at its own size would be: it is read at twice the size, and averaged.
    """
    device = pyramid.photographs.device
    boxes, source, fine = boxes.to(device), source.to(device), 2 * size
    identity = torch.eye(2, 3, dtype=torch.float64, device=device).repeat(len(boxes), 1, 1)
    matrix = box_to_photograph(boxes, fine, identity)
    level = pyramid_level(photograph_pixels(boxes, fine))
    bicubic = torch.full_like(level, INTERPOLATIONS.index("bicubic"))
    group = pyramid.groups(level, source, bicubic)
    out = matrix.new_empty(len(boxes), 3, size, size, dtype=torch.float32)
    for one in group.unique().tolist():
        for mine in (group == one).nonzero()[:, 0].split(_together(size)):
            places = places_in(matrix[mine], fine, pyramid.size)
            out[mine] = F.avg_pool2d(pyramid.read(places, one, source[mine]), 2)
    return out
