"""Random changes to whole batches of images, drawn from an explicit generator.

Every function takes floating-point images (n, channels, height, width) and returns new ones of the
same shape, type, device and memory format; the input is left alone. The `torch.Generator` must live
on the device of the images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smallnets.checks import one_of, plain_fields, whole
from smallnets.data.mixing import beta_share, blend

MODES = ("reflect", "constant")


def random_crop(
    x: Tensor, padding: int, generator: torch.Generator, mode: str = "reflect"
) -> Tensor:
    """Shift each image by up to `padding` pixels in both directions.

    The same as padding by `padding` on all sides and cutting a random window of the old size.

    Args:
        padding: pixels, 0 (no change) or more; less than height and width if `mode` is "reflect".
        mode: what comes in from outside: the image mirrored at its edge ("reflect"), or zeros
            ("constant": grey if the images are normalised).
    """
    whole("padding", padding, 0)
    one_of("mode", mode, MODES)
    n, _, height, width = x.shape
    if mode == "reflect" and padding >= min(height, width):
        raise ValueError(
            f"padding must be less than height and width ({height}x{width}) to reflect; "
            f"got {padding}"
        )
    if padding == 0:
        return x.clone()
    padded = F.pad(x, (padding,) * 4, mode=mode)
    # All windows as a view (n, c, 2 padding + 1, 2 padding + 1, height, width); one is copied each.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, right = _whole_numbers((2, n), 0, 2 * padding + 1, x, generator)
    return windows[torch.arange(n, device=x.device), :, down, right]


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image from left to right with probability one half."""
    mirror = _whole_numbers((len(x), 1, 1, 1), 0, 2, x, generator) == 1
    return torch.where(mirror, x.flip(3), x)


def cutout(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Set a square of `size` pixels to zero, anywhere in each image (DeVries & Taylor, 2017).

    The centre is uniform over the image, so a part of the square may lie outside, as in the paper.
    Zero is the mean colour of normalised images. A `size` of 0 changes nothing.
    """
    whole("size", size, 0)
    n, _, height, width = x.shape
    top = _whole_numbers((n, 1), 0, height, x, generator) - size // 2
    left = _whole_numbers((n, 1), 0, width, x, generator) - size // 2
    return torch.where(_boxes(x, top, top + size, left, left + size), x.new_zeros(()), x)


def mixup(
    x: Tensor, targets: Tensor, generator: torch.Generator, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Blend each image and its target with another of the batch (Zhang et al., 2018, section 2).

    x' = lambda x_i + (1 - lambda) x_j and y' = lambda y_i + (1 - lambda) y_j, lambda ~ Beta(alpha,
    alpha), drawn for every image (the authors' code draws one for the batch).

    Args:
        x: images (n, channels, height, width).
        targets: probabilities (n, classes); one-hot, or a teacher's.
        alpha: greater than 0; small values mostly leave images alone, 1 is uniform.

    Returns:
        Blended images and targets.
    """
    share, partner = _pairs(x, targets, generator, alpha)
    return blend(x, x[partner], share), blend(targets, targets[partner], share)


def cutmix(
    x: Tensor, targets: Tensor, generator: torch.Generator, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image of the batch into each (Yun et al., 2019, section 3.1).

    The rectangle has the image's proportions and covers 1 - lambda of it, lambda ~ Beta(alpha,
    alpha); its centre is uniform, what sticks out is cut off, and the targets are blended by the
    area that is left, as in the authors' code (which draws one rectangle for the batch, here one
    for every image).

    Args and Returns: as `mixup`.
    """
    share, partner = _pairs(x, targets, generator, alpha)
    n, _, height, width = x.shape
    side = (1 - share).sqrt().view(n, 1)
    tall, wide = (height * side).long(), (width * side).long()
    top = _whole_numbers((n, 1), 0, height, x, generator) - tall // 2
    left = _whole_numbers((n, 1), 0, width, x, generator) - wide // 2
    inside = _boxes(x, top, top + tall, left, left + wide)
    kept = 1 - inside.to(targets.dtype).mean((1, 2, 3))
    return torch.where(inside, x[partner], x), blend(targets, targets[partner], kept)


@dataclass(frozen=True)
class Augmentation:
    """The usual changes to a training batch, in this order: crop, flip, cutout.

    Attributes:
        crop: pixels by which images are shifted at most, mirrored at their edges; 0 is none.
        flip: whether half of the images are mirrored. Take it from `Dataset.flips`.
        cutout: side of the square that is blanked, in pixels; 0 is none.
    """

    crop: int = 4
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        plain_fields(self)
        whole("crop", self.crop, 0)
        whole("cutout", self.cutout, 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Changed copy of the images (n, channels, height, width)."""
        x = random_crop(x, self.crop, generator)
        if self.flip:
            x = random_flip(x, generator)
        return cutout(x, self.cutout, generator) if self.cutout else x


def _whole_numbers(
    shape: tuple[int, ...], low: int, high: int, like: Tensor, generator: torch.Generator
) -> Tensor:
    """int64, uniform over low, ..., high - 1, on the device of `like`."""
    return torch.randint(low, high, shape, generator=generator, device=like.device)


def _boxes(x: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """True inside one rectangle an image: bool (n, 1, height, width) from corners (n, 1)."""
    rows = torch.arange(x.shape[2], device=x.device)
    columns = torch.arange(x.shape[3], device=x.device)
    down = (rows >= top) & (rows < bottom)
    across = (columns >= left) & (columns < right)
    return (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)


def _pairs(
    x: Tensor, targets: Tensor, generator: torch.Generator, alpha: float
) -> tuple[Tensor, Tensor]:
    """Own share lambda (n,), float32 in [0, 1], and partner (n,) of each image of a batch."""
    n = len(x)
    if targets.ndim != 2 or len(targets) != n or not targets.is_floating_point():
        raise ValueError(
            f"targets must be probabilities ({n}, classes) in floating point; "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )
    partner = torch.randperm(n, generator=generator, device=x.device)
    return beta_share(alpha, (n,), generator), partner
