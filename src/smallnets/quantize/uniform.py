"""Uniform quantisation: evenly spaced levels, their codes, and where to put them.

A grid is a step (the distance of two levels, in the unit of the tensor) and a zero point (the code
that stands for 0). `x` of shape (...) is stored as codes `round(x / step) + zero` and read back as
`step * (codes - zero)`. With `per_channel` every output channel, the first dimension of a weight,
has a grid of its own, and steps and zero points have the shape (channels, 1, ...).
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from smallnets.checks import above, whole
from smallnets.quantize.rounding import integer_range


def nearest_codes(
    x: Tensor, step: Tensor | float, low: int, high: int, zero: Tensor | float = 0
) -> Tensor:
    """Return the codes of the levels nearest to `x`, between `low` and `high`, in x's dtype.

    Raises:
        ValueError: the dtype does not reach to the largest code, as float16 at 16 bits.
    """
    if high > torch.finfo(x.dtype).max:
        raise ValueError(
            f"codes must be at most {torch.finfo(x.dtype).max:g} in {x.dtype}; got {high}"
        )
    return (torch.round(x / step) + zero).clamp(low, high)


def dequantize(codes: Tensor, step: Tensor | float, zero: Tensor | float = 0) -> Tensor:
    """Return the values that `codes` stand for: step * (codes - zero)."""
    return step * (codes - zero)


def fake_quantize(
    x: Tensor,
    step: Tensor | float,
    low: int | Tensor,
    high: int | Tensor,
    zero: Tensor | float = 0,
) -> Tensor:
    """Return `x` moved to the nearest level of the grid, with straight-through gradients.

    Args:
        x: any shape.
        step: broadcasts against `x`; its sign is ignored, so that learning it cannot turn the grid
            around.
        low, high: the smallest and the largest code.
        zero: the code of the value 0, a whole number; broadcasts against `x`; no gradient.

    With v = x / step: the gradient to `x` is 1 where low <= v + zero <= high and 0 elsewhere; the
    gradient to the step is round(v) - v there and the code of the limit (less `zero`) elsewhere.
    """
    step = torch.as_tensor(step, dtype=x.dtype, device=x.device)
    quantised: Tensor = _FakeQuantize.apply(x, step, low - zero, high - zero)
    return quantised


def affine_grid(x: Tensor, bits: int, per_channel: bool = False) -> tuple[Tensor, Tensor]:
    """Return the step and zero point whose 2^bits levels reach from x's minimum to its maximum.

    The range always includes 0, so that 0 (of padding, of a ReLU) is a level. Codes run from 0 to
    2^bits - 1. A range too narrow for a step above 0 is stored as zeros.

    Raises:
        ValueError: values, or a range, that are not finite.
    """
    _, high = integer_range(bits, signed=False)
    least, most = _extremes(_values(x), per_channel)
    least, most = least.clamp(max=0), most.clamp(min=0)
    step = _wide_enough(_width(least, most), high) / high
    return step, -torch.round(least / step)


def symmetric_grid(x: Tensor, bits: int, per_channel: bool = False) -> Tensor:
    """Return the step whose codes -(2^(bits-1) - 1) .. 2^(bits-1) - 1 reach x's largest size.

    A range too narrow for a step above 0 is stored as zeros.

    Raises ValueError for one bit, which leaves the code 0 alone, and for values that are not
    finite.
    """
    _, high = integer_range(bits)
    if high == 0:
        raise ValueError("bits of a symmetric grid must be between 2 and 32; got 1")
    least, most = _extremes(_values(x), per_channel)
    return _wide_enough(torch.maximum(-least, most), high) / high


def search_grid(
    x: Tensor,
    bits: int,
    *,
    symmetric: bool = False,
    signed: bool = True,
    per_channel: bool = True,
    zero_in_range: bool = False,
    power: float = 2.4,
    ratios: int = 100,
) -> tuple[Tensor, Tensor]:
    """Return the step and zero point of the clipping range with the least error.

    The range of `x` is shrunk to r times its width for r = 1, 1 - 1/ratios, ..., 1/ratios, and the
    r with the least mean |x - quantised x|^power is kept, the larger one of two equals (the search
    of BRECQ and Genie's code). Codes run from 0 to 2^bits - 1.

    Args:
        x: any shape; the first dimension is the channel if `per_channel`.
        symmetric: the range is -max|x| .. max|x|, or 0 .. max|x| unless `signed`.
        zero_in_range: keep the zero point a code, as integer hardware needs it, also where all
            values have one sign.
        power: exponent of the error, above 0.

    Warns about channels that hold a single value; they are stored without error, or as zeros if
    the value is too small for a step above 0.

    Raises:
        ValueError: values, or a range, that are not finite.
    """
    _, high = integer_range(bits, signed=False)
    above("power", power, 0)
    whole("ratios", ratios, 1)
    least, most = _extremes(_values(x), per_channel)
    if symmetric:
        most = torch.maximum(-least, most)
        least = -most if signed else torch.zeros_like(most)
    elif zero_in_range:
        least, most = least.clamp(max=0), most.clamp(min=0)
    least, most = _spread(least, most, high * ratios)
    best_step = _width(least, most) / high
    best_zero = -torch.round(least / best_step)
    best = torch.full_like(most, torch.inf)
    for ratio in torch.linspace(1, 1 / ratios, ratios, dtype=torch.float64).tolist():
        step = ratio * (most - least) / high
        zero = -torch.round(ratio * least / step)
        quantised = dequantize(nearest_codes(x, step, 0, high, zero), step, zero)
        error = _mean((x - quantised).abs().pow(power), per_channel)
        better = error < best
        best = torch.where(better, error, best)
        best_step = torch.where(better, step, best_step)
        best_zero = torch.where(better, zero, best_zero)
    return best_step, best_zero


class _FakeQuantize(torch.autograd.Function):
    """x_hat = step * round(clamp(x / step, low, high)), in few passes over the tensor.

    For upstream u: dL/dx is u inside the range and 0 outside, and step * dL/dstep the sum of
    u (x_hat - x) inside and of u x_hat outside, which is that of u x_hat - dL/dx x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int | Tensor, high: int | Tensor) -> Tensor:
        size = _size(step)
        value = _clip(x / size, low, high).round_().mul_(size)
        ctx.save_for_backward(x, value, step)
        ctx.limits = low, high
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (upstream,) = gradients
        x, value, step = ctx.saved_tensors
        size, (low, high) = _size(step), ctx.limits
        slack = 1e-6 * size  # the limits themselves belong to the range
        passed = _inside(upstream, x, low * size - slack, high * size + slack)
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None
        total = _sum_of_products(upstream, value, step) - _sum_of_products(passed, x, step)
        return passed, total / size * torch.where(step < 0, -1, 1), None, None


def _inside(upstream: Tensor, x: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """`upstream` where x is between two limits, else 0."""
    if least.numel() == most.numel() == 1 and not x.is_cuda:  # one pass instead of four
        return torch.ops.aten.hardtanh_backward(upstream, x, float(least), float(most))
    return upstream * ((x >= least) & (x <= most))


def _sum_of_products(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Sum of a b over all elements that share one element of `like`."""
    if like.numel() > 1:
        return (a * b).sum_to_size(like.shape)
    if a.ndim == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)  # no copy below
    return torch.dot(a.reshape(-1), b.reshape(-1)).reshape(like.shape)


def _clip(x: Tensor, low: int | Tensor, high: int | Tensor) -> Tensor:
    if isinstance(low, int) and isinstance(high, int):
        return x.clamp(low, high)
    return torch.maximum(torch.minimum(x, _like(high, x)), _like(low, x))


def _like(limit: int | Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(limit, dtype=x.dtype, device=x.device)


def _size(step: Tensor) -> Tensor:
    return step.abs().clamp(min=torch.finfo(step.dtype).tiny)


def _values(x: Tensor) -> Tensor:
    if x.numel() == 0 or not bool(torch.isfinite(x).all()):
        raise ValueError(
            f"a grid needs at least one value and only finite ones; got shape {tuple(x.shape)} "
            f"with {int((~torch.isfinite(x)).sum())} that are not finite"
        )
    return x.detach()


def _extremes(x: Tensor, per_channel: bool) -> tuple[Tensor, Tensor]:
    """Minimum and maximum, of everything () or of every channel (channels, 1, ...)."""
    if not per_channel:
        return x.min(), x.max()
    shape = (len(x), *[1] * (x.dim() - 1))
    rows = x.flatten(1) if x.dim() > 1 else x[:, None]
    return rows.amin(1).view(shape), rows.amax(1).view(shape)


def _mean(x: Tensor, per_channel: bool) -> Tensor:
    if not per_channel:
        return x.mean()
    return x.mean(dim=tuple(range(1, x.dim())), keepdim=True) if x.dim() > 1 else x


def _width(least: Tensor, most: Tensor) -> Tensor:
    width = most - least
    if not bool(width.isfinite().all()):
        raise ValueError(
            f"the range of a grid must be a finite {width.dtype}; got {float(least.min()):g} to "
            f"{float(most.max()):g}"
        )
    return width


def usable(step: Tensor) -> Tensor:
    """Whether steps are finite and above 0, by more than the rounding of denormal numbers."""
    kind = torch.finfo(step.dtype)
    least = 2.0**-24 if step.dtype is torch.float16 else kind.tiny  # half precision needs them
    return (step >= least) & (step <= kind.max)


def _wide_enough(width: Tensor, high: int) -> Tensor:
    """A range too narrow for steps above 0 holds next to nothing: any step stores it as zeros."""
    return torch.where(usable(width / high), width, torch.ones_like(width))


def _spread(least: Tensor, most: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Where all values are one, let the range reach to 0 (or to 1 where that value is 0)."""
    constant = ~usable(_width(least, most) / parts)
    if bool(constant.any()):
        which = constant.flatten().nonzero().flatten().tolist()
        warnings.warn(f"channels {which} of the tensor hold a single value each", stacklevel=3)
        least = torch.where(constant, least.clamp(max=0), least)
        most = torch.where(constant, most.clamp(min=0), most)
        nothing = ~usable((most - least) / parts)
        least = torch.where(nothing, torch.zeros_like(least), least)
        most = torch.where(nothing, torch.ones_like(most), most)
    return least, most
