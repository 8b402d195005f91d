"""Whole numbers in a differentiable network: ranges of codes and straight-through rounding.

The straight-through estimator (Bengio et al., 2013) rounds on the way forward and pretends on the
way back that nothing was rounded.
"""

from typing import Any

import torch
from torch import Tensor

from smallnets.checks import whole


def integer_range(bits: int, signed: bool = True) -> tuple[int, int]:
    """Return the smallest and the largest code of `bits` bits, two's complement if `signed`.

    Raises ValueError unless `bits` is a whole number between 1 and 32.
    """
    if whole("bits", bits, 1) > 32:
        raise ValueError(f"bits must be between 1 and 32; got {bits}")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def round_through(x: Tensor) -> Tensor:
    """Return `x` rounded to whole numbers, halves to the even one; derivative 1 everywhere."""
    rounded: Tensor = _Through.apply(x, torch.round)
    return rounded


def floor_through(x: Tensor) -> Tensor:
    """Return the largest whole numbers that do not exceed `x`; derivative 1 everywhere."""
    floored: Tensor = _Through.apply(x, torch.floor)
    return floored


def round_stochastically(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return `x` rounded up with a probability equal to its fraction, else down.

    The expected value is `x` itself; the derivative is 1 everywhere.
    """
    noise = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    return floor_through(x + noise)


def scale_gradient(x: Tensor, factor: float | Tensor) -> Tensor:
    """Return `x` unchanged; the gradient that comes back through it is multiplied by `factor`."""
    scaled: Tensor = _ScaleGradient.apply(x, factor)
    return scaled


class _Through(torch.autograd.Function):
    """A step function on the way forward, the identity on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step_function: Any) -> Tensor:
        rounded: Tensor = step_function(x)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float | Tensor) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None
