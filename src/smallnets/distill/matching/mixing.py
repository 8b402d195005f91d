"""Mixup as a continuum of inputs between images, the way the published code mixes.

    a ~ Beta(alpha, alpha),   a = max(a, 1 - a),   x'_i = a x_i + (1 - a) x_(i-1)        (1)

The partner is the image before, and that of the first image is the last: a cyclic shift. Reversing
the batch instead, as a popular re-implementation does, makes every pair twice. Mixing is for
inputs only: the teacher is asked about the mixture, its answers are not mixed.
"""

from typing import Any

import torch
from torch import Tensor

from smallnets import checks
from smallnets.data import beta_share, blend


def mixing_share(
    alpha: float, count: int, generator: torch.Generator, *, per_image: bool = False
) -> Tensor:
    """The share a of equation (1): one for the batch (), or one an image (count,), in [1/2, 1].

    Args:
        alpha: of the Beta distribution; 1 is uniform, smaller values mostly leave images alone,
            and 0 always does.
        count: images in the batch.
        generator: random numbers; the result is on its device.
        per_image: draw for every image; the published code draws once a batch.
    """
    checks.at_least("alpha", alpha, 0)
    shape = (count,) if per_image else ()
    if alpha == 0:
        return torch.ones(shape, device=generator.device)
    share = beta_share(alpha, shape, generator)
    return torch.maximum(share, 1 - share)


def mix(x: Tensor, share: Tensor | float) -> Tensor:
    """Equation (1) for a given share: each entry of a batch with the one before it.

    Args:
        x: (batch, ...).
        share: one number, or one an entry (batch,), in [0, 1].

    Raises:
        ValueError: a share outside [0, 1], or as many shares as there are not entries.
    """
    share = torch.as_tensor(share, dtype=x.dtype, device=x.device)
    if share.ndim and share.shape != x.shape[:1]:
        raise ValueError(f"share must be one number or {len(x)}; got {tuple(share.shape)}")
    if share.min() < 0 or share.max() > 1:
        raise ValueError(f"share must be between 0 and 1; got {share.min():g} to {share.max():g}")
    return blend(x, x.roll(1, dims=0), share)


def mixup(
    *tensors: Tensor,
    alpha: float = 1.0,
    per_image: bool = False,
    generator: torch.Generator,
) -> tuple[Any, ...]:
    """Mix any number of tensors (batch, ...) with the same partners and the same share.

    Args:
        tensors: such as the student's view and the teacher's view, or images and labels.
        alpha, per_image, generator: see `mixing_share`.

    Returns:
        The mixed tensors, and the share at the end.

    Raises:
        ValueError: no tensor, batches of different sizes, an empty one, or alpha below 0.
    """
    sizes = {len(x) for x in tensors}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "tensors must share one batch that is not empty; "
            f"got batches of {sorted(sizes) or 'nothing'}"
        )
    share = mixing_share(alpha, sizes.pop(), generator, per_image=per_image)
    return (*(mix(x, share) for x in tensors), share)
