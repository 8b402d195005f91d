"""Parameterised clipping activation (PACT): learn where to cut, then space the levels evenly.

Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, 2018. The
weights of a PACT network are DoReFa's.
"""

from typing import Any

import torch
from torch import Tensor

from smallnets.quantize.rounding import integer_range
from smallnets.quantize.uniform import usable


def pact(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """Return `x` clipped to [0, alpha] and rounded to 2^bits levels (equations 1-3).

    Args:
        x: activations, any shape.
        alpha: the clipping level, one finite number above 0; a parameter, decayed like a weight.

    The gradient to `x` is 1 inside (0, alpha) and 0 elsewhere; to alpha it is 1 from alpha upwards.

    Raises:
        ValueError: another alpha, or one whose levels are too close to be told apart.
    """
    _, high = integer_range(bits, signed=False)
    if alpha.numel() != 1 or not bool(usable(alpha.detach() / high)):
        raise ValueError(f"alpha must be one number above 0; got {alpha.tolist()}")
    clipped: Tensor = _Pact.apply(x, alpha, high)
    return clipped


class _Pact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, high: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        step = alpha / high
        return torch.round(torch.minimum(x.clamp(min=0), alpha) / step) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (upstream,) = gradients
        x, alpha = ctx.saved_tensors
        cut = x >= alpha
        to_alpha = (upstream * cut).sum().to(alpha.dtype).reshape(alpha.shape)
        return upstream * ((x > 0) & ~cut), to_alpha, None
