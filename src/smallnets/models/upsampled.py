"""Nearest-neighbour upsampling by two and a 3x3 convolution, computed on the small map.

After upsampling, the nine pixels under a kernel are copies of four pixels of the small map. Which
four depends on the phase alone: whether the output's row and column are even or odd. With u the
upsampled map, x the small one, and one direction only,

    y[2i]     = w0 u[2i-1] + w1 u[2i]   + w2 u[2i+1] = w0 x[i-1]      + (w1 + w2) x[i]
    y[2i + 1] = w0 u[2i]   + w1 u[2i+1] + w2 u[2i+2] = (w0 + w1) x[i] + w2 x[i+1],

so each of the four phases is a 2x2 convolution of x with summed weights, and the output is their
interleaving: 16 products for every input pixel and pair of channels instead of 36, and no large map
of the inputs. Zeros beyond the edge are the same in both.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def upsampled_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv2d(interpolate(x, scale_factor=2), weight, bias, padding=1)`, up to rounding.

    Args:
        x: (batch, inputs, height, width).
        weight: (outputs, inputs, 3, 3).
        bias: (outputs,).

    Returns:
        (batch, outputs, 2 height, 2 width), in the memory format of `x`.

    Raises:
        ValueError: shapes that do not fit.
    """
    if weight.dim() != 4 or weight.shape[2:] != (3, 3):
        raise ValueError(f"weight must be (outputs, inputs, 3, 3); got {tuple(weight.shape)}")
    if x.dim() != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x must be (batch, {weight.shape[1]}, height, width); got {tuple(x.shape)}"
        )
    kernels = phase_kernels(weight)
    if is_channels_last(x):
        kernels = kernels.contiguous(memory_format=torch.channels_last)
    shared = None if bias is None else bias.repeat(4)
    phases: Tensor = _Interleave.apply(F.conv2d(x, kernels, shared, padding=1))
    return phases


def phase_kernels(weight: Tensor) -> Tensor:
    """The 2x2 kernels (4 outputs, inputs, 2, 2) of a weight (outputs, inputs, 3, 3).

    Phases come in the order even-even, even-odd, odd-even, odd-odd of (row, column).
    """
    rows = _summed(weight, 2)
    both = _summed(rows, 3).unflatten(3, (2, 2)).unflatten(2, (2, 2))
    return both.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def _summed(weight: Tensor, axis: int) -> Tensor:
    """Three weights along an axis -> the two of the even phase, then the two of the odd one."""
    first, middle, last = weight.unbind(axis)
    return torch.stack([first, middle + last, first + middle, last], axis)


class UpsampledConv2d(nn.Conv2d):
    """`nn.Upsample(scale_factor=2)` and `nn.Conv2d(inputs, outputs, 3, padding=1)` in one layer.

    It has that convolution's parameters, under the same names and with the same initial values.

    Args:
        in_channels, out_channels: of the convolution.
        bias: whether it has one.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) -> (batch, outputs, 2 height, 2 width)."""
        return upsampled_conv2d(x, self.weight, self.bias)


class _Interleave(torch.autograd.Function):
    """(batch, 4 channels, h + 1, w + 1), the 2x2 convolutions of a padded map -> (batch, channels,
    2h, 2w). An even phase begins with the first window, an odd one with the second.
    """

    @staticmethod
    def forward(ctx: Any, phases: Tensor) -> Tensor:
        ctx.shape, ctx.layout = phases.shape, _layout(phases)
        batch, channels, height, width = phases.shape
        shape = (batch, channels // 4, 2 * height - 2, 2 * width - 2)
        out = torch.empty(shape, dtype=phases.dtype, device=phases.device, memory_format=ctx.layout)
        for large, small in _places(ctx.shape):
            out[large] = phases[small]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        back = torch.empty(
            ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.layout
        ).zero_()
        for large, small in _places(ctx.shape):
            back[small] = gradient[large]
        return back


Place = tuple[slice, slice, slice, slice]


def _places(shape: torch.Size) -> list[tuple[Place, Place]]:
    """Where each phase stands in the large map, and in the four maps of windows."""
    channels, height, width = shape[1] // 4, shape[2] - 1, shape[3] - 1
    whole = slice(None)
    return [
        (
            (whole, whole, slice(down, None, 2), slice(right, None, 2)),
            (
                whole,
                slice((2 * down + right) * channels, (2 * down + right + 1) * channels),
                slice(down, down + height),
                slice(right, right + width),
            ),
        )
        for down in (0, 1)
        for right in (0, 1)
    ]


def is_channels_last(x: Tensor) -> bool:
    """Whether maps (batch, channels, height, width) lie in memory with their channels last."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format
