"""Mixing the images of a batch, without labels: the teacher is asked about the mixture.

CutMix (Yun et al., 2019) copies a box from a partner image. One share lambda ~ Beta(alpha, alpha)
and one box a batch, with r = sqrt(1 - lambda) and a centre (c1, c2) uniform over the image:

    box = [clip(c1 - int(H r) // 2, 0, H), clip(c1 + int(H r) // 2, 0, H)) x the same for c2 and W

As no target is mixed, the box that is cut off at the edge needs no correction of lambda. The two
published conventions differ: the PyTorch code ("permutation") takes partners at random and allows
an empty box; the TensorFlow code ("reverse") takes the batch in reverse and makes an empty side one
pixel long. lambda = 0 swaps a whole image only where the centre allows it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.data import beta_share, blend

PARTNERS = ("permutation", "reverse")
MIXINGS = ("none", "cutmix", "cutmix_reverse", "mixup")


@dataclass(frozen=True, eq=False)
class CutBox:
    """What a batch was mixed with.

    Attributes:
        y1, y2, x1, x2: rows and columns of the box, ends excluded.
        lam: the share that was drawn (the box may be smaller, as it is cut off at the edge).
        partner: int64 (batch,), from which image the box came.
    """

    y1: int
    y2: int
    x1: int
    x2: int
    lam: float
    partner: Tensor

    @property
    def area(self) -> int:
        """Pixels of the box."""
        return (self.y2 - self.y1) * (self.x2 - self.x1)


def cut_side(length: int, lam: float, centre: int) -> tuple[int, int]:
    """Beginning and end of a box along one axis; an odd side loses a pixel, as published."""
    half = int(length * np.sqrt(1 - lam)) // 2
    return max(centre - half, 0), min(centre + half, length)


def cutmix_images(
    x: Tensor,
    alpha: float = 0.25,
    generator: torch.Generator | None = None,
    box: CutBox | None = None,
    partner: str = "permutation",
) -> tuple[Tensor, CutBox]:
    """Copy one box of each image's partner into it.

    Args:
        x: (batch, channels, height, width).
        alpha: of the Beta distribution, above 0; 0.25 (CIFAR) leaves a third of the batches within
            a hundredth of no mixing or of a swap.
        generator: random numbers; needed where no box is given.
        box: what to cut, as an earlier call returned it.
        partner: "permutation" or "reverse".

    Returns:
        The mixed batch, of the type and device of `x`, and what was cut.

    Raises:
        ValueError: a batch of another shape (clips have `cutmix_clips`), an alpha that is not above
            0, an unknown partner, or neither a generator nor a box.
    """
    if x.dim() != 4 or len(x) == 0:
        raise ValueError(
            "images must be (batch, channels, height, width) and not empty; "
            f"got {tuple(x.shape)} (clips have cutmix_clips)"
        )
    return _cut(x, alpha, generator, box, partner)


def cutmix_clips(
    x: Tensor,
    alpha: float = 1.0,
    generator: torch.Generator | None = None,
    box: CutBox | None = None,
    partner: str = "permutation",
) -> tuple[Tensor, CutBox]:
    """The same for clips (batch, channels, frames, height, width): one box for all frames.

    (The published video code gives clips to the function for images, which then cuts frames x rows
    across the full width.)
    """
    if x.dim() != 5 or len(x) == 0:
        raise ValueError(
            "clips must be (batch, channels, frames, height, width) and not empty; "
            f"got {tuple(x.shape)}"
        )
    return _cut(x, alpha, generator, box, partner)


def mixup_images(
    x: Tensor, generator: torch.Generator | None = None, share: float | None = None
) -> Tensor:
    """Blend with the reversed batch, one uniform share a batch, as in the official CIFAR code
    (which has the function and does not call it).

    Args:
        x: floating-point (batch, ...).
        generator: random numbers; needed where no share is given.
        share: of the image itself, in [0, 1].

    Raises:
        ValueError: whole numbers, an empty batch, a share outside [0, 1], or neither a generator
            nor a share.
    """
    if len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"mixup needs a floating-point batch that is not empty; got {x.dtype} {tuple(x.shape)}"
        )
    if share is None:
        drawn = _needed(generator)
        mine = torch.rand((), generator=drawn, device=drawn.device).to(x.device)
    else:
        mine = torch.tensor(checks.between("share", share, 0, 1), device=x.device)
    return blend(x, x.flip(0), mine)


def mixed(x: Tensor, mixing: str, alpha: float, generator: torch.Generator) -> Tensor:
    """A batch mixed in one of the ways of `MIXINGS`; 5-D batches are clips."""
    checks.one_of("mixing", mixing, MIXINGS)
    if mixing == "none":
        return x
    if mixing == "mixup":
        return mixup_images(x, generator)
    partner = "reverse" if mixing == "cutmix_reverse" else "permutation"
    cut = cutmix_clips if x.dim() == 5 else cutmix_images
    return cut(x, alpha, generator, partner=partner)[0]


def _cut(
    x: Tensor, alpha: float, generator: torch.Generator | None, box: CutBox | None, partner: str
) -> tuple[Tensor, CutBox]:
    checks.above("alpha", alpha, 0)
    checks.one_of("partner", partner, PARTNERS)
    if box is None:
        box = draw_box(tuple(x.shape), alpha, _needed(generator), partner)
    out = x.clone()
    inside = (..., slice(box.y1, box.y2), slice(box.x1, box.x2))
    out[inside] = x[inside][box.partner.to(x.device)]
    return out, box


def draw_box(
    shape: tuple[int, ...], alpha: float, generator: torch.Generator, partner: str = "permutation"
) -> CutBox:
    """The box of a batch (batch, ..., height, width) at random."""
    lam = float(beta_share(alpha, (), generator))
    height, width = shape[-2:]
    drawn = torch.rand(2, generator=generator, device=generator.device).tolist()
    centre = [min(int(u * side), side - 1) for u, side in zip(drawn, (height, width), strict=True)]
    if partner == "reverse":
        chosen = torch.arange(shape[0] - 1, -1, -1)
    else:
        chosen = torch.randperm(shape[0], generator=generator, device=generator.device)
    return cut_box((height, width), lam, (centre[0], centre[1]), chosen, partner)


def cut_box(
    size: tuple[int, int],
    lam: float,
    centre: tuple[int, int],
    partners: Tensor,
    partner: str = "permutation",
) -> CutBox:
    """The box for a share and a centre.

    Args:
        size: height and width of the images.
        lam: share of the image itself, in [0, 1].
        centre: row and column.
        partners: int64 (batch,).
        partner: the convention; with "reverse" an empty side becomes one pixel.
    """
    checks.between("lam", lam, 0, 1)
    sides = [cut_side(length, lam, at) for length, at in zip(size, centre, strict=True)]
    if partner == "reverse":
        sides = [(low, max(high, low + 1)) for low, high in sides]
    (y1, y2), (x1, x2) = sides
    return CutBox(y1, y2, x1, x2, lam, partners)


def _needed(generator: torch.Generator | None) -> torch.Generator:
    if generator is None:
        raise ValueError("mixing needs a generator, or what to mix; got neither")
    return generator
