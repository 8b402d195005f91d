"""What happens to a patch in every step of the training (section 3.2 of the method).

Images are floating point in [0, 1], before normalisation: padding is black, not grey.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import random_crop, random_flip
from smallnets.distill.single_image import colour
from smallnets.distill.single_image.settings import check_jitter


@dataclass(frozen=True)
class TrainingView:
    """Light augmentation of patches that were made with strong augmentation.

    `CIFAR_VIEW` (mirror, pad and crop) is the published one. Two differ from what was published:

    - `IMAGENET_VIEW` (random resized crop to 224 pixels, mirror, colours, grey, solarised) reads
      its crops bicubically, but without antialiasing, and as if the image went on around the box,
      where PIL cuts the box out first and averages over its pixels. A box that does not fit in the
      image is cut off, not drawn anew.
    - `CLIP_VIEW` (a square of the clip, mirror) takes the boxes of a crop of 160 pixels from a clip
      whose shorter side was resized to 183 to 229, with a uniform area, not side. AugMix, which the
      published one goes on with, is left out: clips keep their colours.

    Attributes:
        flip: mirror half of the images from left to right.
        padding: zeros around the image, of which a window of the old size is cut.
        area: range of the share that a resized crop takes; None takes no crop.
        aspect: range of the crop's width over its height; the logarithm is uniform.
        size: side of the resized crop; None is the height of the image. Not without an area.
        interpolation: of the resized crop, "bilinear" or "bicubic".
        jitter: brightness, contrast, saturation and hue, see `PatchSettings`.
        jitter_probability, grey_probability, solarise_probability: shares of the images changed.
        threshold: grey level of 255 from which solarised images are inverted.

    Raises:
        ValueError: a field is out of range.
    """

    flip: bool = True
    padding: int = 4
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    size: int | None = None
    interpolation: str = "bilinear"
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    grey_probability: float = 0.0
    solarise_probability: float = 0.0
    threshold: float = 128.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("padding", self.padding, 0)
        if self.area is not None:
            low, high = self.area
            checks.between("upper end of area", high, checks.above("area", low, 0), 1)
        low, high = self.aspect
        checks.between("upper end of aspect", high, checks.above("aspect", low, 0), 1e6)
        if self.size is not None:
            checks.whole("size", self.size, 1)
            if self.area is None:
                raise ValueError(
                    f"size is that of a resized crop, which needs an area; got {self.size} and None"
                )
        checks.one_of("interpolation", self.interpolation, ("bilinear", "bicubic"))
        check_jitter(self.jitter)
        for name in ("jitter_probability", "grey_probability", "solarise_probability"):
            checks.between(name, getattr(self, name), 0, 1)
        checks.between("threshold", self.threshold, 0, 255)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Changed copy of images (n, channels, height, width) in [0, 1], of their size unless
        `size` tells another; of clips (n, channels, frames, height, width) all frames alike, and
        not their colours.
        """
        if x.dim() == 5:
            return self._placed(x.flatten(1, 2), generator).unflatten(1, x.shape[1:3])
        x = self._placed(x, generator)
        if x.shape[1] == 3:
            x = self._coloured(x, generator)
        return self._solarised(x, generator)

    def _placed(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.area is not None:
            size = self.size or x.shape[2]
            x = resized_crops(x, self.area, size, generator, self.aspect, self.interpolation)
        if self.flip:
            x = random_flip(x, generator)
        return random_crop(x, self.padding, generator, mode="constant") if self.padding else x

    def _coloured(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.jitter_probability > 0:
            chosen = _chosen(x, self.jitter_probability, generator)
            drawn = torch.rand(len(x), 8, generator=generator, device=x.device)
            factors = (2 * drawn[:, :4] - 1) * x.new_tensor(self.jitter) + x.new_tensor(
                [1, 1, 1, 0]
            )
            changed = colour.jitter(255 * x, factors, drawn[:, 4:].argsort(dim=1)) / 255
            x = torch.where(chosen, changed, x)
        if self.grey_probability > 0:
            chosen = _chosen(x, self.grey_probability, generator)
            x = torch.where(chosen, colour.grey(x)[:, None], x)
        return x

    def _solarised(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.solarise_probability == 0:
            return x
        chosen = _chosen(x, self.solarise_probability, generator)
        return torch.where(chosen & (x >= self.threshold / 255), 1 - x, x)


CIFAR_VIEW = TrainingView()
IMAGENET_VIEW = TrainingView(
    padding=0, area=(0.08, 1.0), size=224, interpolation="bicubic",
    jitter=(0.4, 0.4, 0.4, 0.4), jitter_probability=0.8,
    grey_probability=0.2, solarise_probability=0.2,
)  # fmt: skip
CLIP_VIEW = TrainingView(padding=0, area=((160 / 229) ** 2, (160 / 183) ** 2), aspect=(1.0, 1.0))
NO_VIEW = TrainingView(flip=False, padding=0)


def resized_crops(
    x: Tensor,
    area: tuple[float, float],
    size: int,
    generator: torch.Generator,
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
) -> Tensor:
    """A box of random area, shape and place of every image (n, channels, height, width) in [0, 1],
    resized to `size` without antialiasing: (n, channels, size, size).

    Boxes that would not fit are made to: their sides are cut to the image's.
    """
    n, _, height, width = x.shape
    drawn = torch.rand(4, n, generator=generator, device=x.device)
    share = area[0] + (area[1] - area[0]) * drawn[0]
    low, high = torch.tensor(aspect).log().tolist()
    ratio = torch.exp(low + (high - low) * drawn[1])
    across = (share * ratio * height / width).sqrt().clamp_max(1)
    down = (share / ratio * width / height).sqrt().clamp_max(1)
    theta = x.new_zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = across, down
    theta[:, 0, 2], theta[:, 1, 2] = (
        (2 * place - 1) * (1 - side) for place, side in ((drawn[2], across), (drawn[3], down))
    )
    grid = F.affine_grid(theta, [n, x.shape[1], size, size], align_corners=False)
    out = F.grid_sample(x, grid, interpolation, padding_mode="border", align_corners=False)
    return out.clamp_(0, 1) if interpolation == "bicubic" else out  # which overshoots


def _chosen(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """bool (n, 1, 1, 1)."""
    drawn = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
    return drawn < probability
