"""Mixing the examples of a batch: the share that each keeps, and the mixture."""

import numpy as np
import torch
from torch import Tensor

from smallnets import checks


def beta_share(alpha: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Shares drawn from Beta(alpha, alpha), float32 in [0, 1], on the generator's device.

    Args:
        alpha: greater than 0; small values are mostly near 0 or 1, 1 is uniform.
        shape: () for one share, (n,) for one an example.
        generator: random numbers.
    """
    checks.above("alpha", alpha, 0)
    # torch's Beta takes no generator; NumPy's does, and gets its seed from ours.
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    drawn = np.random.default_rng(int(seed)).beta(alpha, alpha, shape)
    return torch.as_tensor(drawn, dtype=torch.float32, device=generator.device)


def blend(x: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """share x + (1 - share) partner.

    Args:
        x, partner: (n, ...) of one shape.
        share: (), or (n,) for one an example.
    """
    share = share.to(x.dtype)
    if share.ndim:
        share = share.view(-1, *[1] * (x.ndim - 1))
    return torch.lerp(partner, x, share)
