"""Colour jitter of whole batches, in the same steps as torchvision's on single pictures.

Images are floating-point (n, 3, height, width) with grey levels from 0 to 255, and are changed in
place. Only operations whose rounding is exact in IEEE arithmetic are used, so that an image's
result does not depend on the batch it is in.
"""

from collections.abc import Callable

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)


def grey(images: Tensor) -> Tensor:
    """Luma (n, height, width) of ITU-R 601."""
    red, green, blue = images.unbind(1)
    return (red * GREY[0]).add_(green * GREY[1]).add_(blue * GREY[2])


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Grey levels times a factor an image."""
    return images.mul_(factors).clamp_(max=255)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image's mean luma, a whole number as in PIL."""
    # Sums of whole numbers are exact in any order; those of a clip's pixels need more than float32.
    luma = grey(images).round_().flatten(1)
    mean = (luma.sum(dim=1, dtype=torch.float64) / luma.shape[1] + 0.5).floor_()
    return _blend(images, mean.to(images).view(-1, 1, 1, 1), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image's luma."""
    return _blend(images, grey(images)[:, None], factors)


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Hues turned by `shifts` turns; largest and smallest channel of each pixel stay as they are.

    With hue h in sixths of a turn, value v and chroma c, a channel is v - c clamp(2 - |d|, 0, 1),
    where d is the distance on the circle from h to the hue opposite to that channel.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    inverse = chroma.clamp_min(1e-6).reciprocal_()
    angle = torch.where(
        value == red,
        (green - blue).mul_(inverse),
        torch.where(
            value == green,
            (blue - red).mul_(inverse).add_(2),
            (red - green).mul_(inverse).add_(4),
        ),
    ).add_(6 * shifts.view(-1, 1, 1))
    for channel, opposite in ((red, 3), (green, 5), (blue, 1)):
        distance = angle - opposite
        distance.sub_((distance / 6).round_().mul_(6)).abs_()
        torch.sub(value, distance.neg_().add_(2).clamp_(0, 1).mul_(chroma), out=channel)
    return images


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


def jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """All four changes of every image, in each one's own order.

    Args:
        images: (n, 3, height, width), used up.
        factors: (n, 4) of brightness, contrast, saturation, hue.
        order: int64 (n, 4), places of these.

    Returns:
        The changed images, in the old order.
    """
    factors = factors.to(images)
    now = torch.arange(len(images), device=images.device)
    for step in range(4):
        # Those that take the same step lie together, and each group is changed in place.
        turn, arrangement = order[now, step].sort(stable=True)
        images, now = images.index_select(0, arrangement), now[arrangement]
        counts = torch.bincount(turn, minlength=4).tolist()
        for which, part, mine in zip(
            range(4), images.split(counts), now.split(counts), strict=True
        ):
            if len(part):
                OPERATIONS[which](part, factors[mine, which].view(-1, 1, 1, 1))
    return images.index_select(0, now.argsort())


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    return images.mul_(factors).add_(other * (1 - factors)).clamp_(0, 255)
