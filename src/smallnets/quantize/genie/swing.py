"""Swing convolution: a strided convolution that reads another phase of its input at every pass.

A convolution of stride 2 does not read every pixel alike (with a kernel of one, three of four not
at all): an optimised image gets more of the gradient on one phase of the stride's grid than on the
others, and shows it. A swing convolution pads its input by reflection and crops it at a random
place, so that every phase takes its turns. With three offsets in each direction the turns are not
equal, but no phase is left out. Weights, padding and stride stay as they are (official code; the
paper's section on swing convolution).
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.surgery import replace_module


class SwingConv2d(nn.Module):
    """A convolution whose input is shifted by up to `jitter` pixels either way at every pass.

    Attributes:
        conv: the convolution, unchanged.
        jitter: the largest shift, in pixels.
        draw: () -> (offset along the width, offset along the height), each from 0 to 2 jitter;
            `jitter` is the convolution itself. Two independent random numbers by default, one pair
            for a batch; tests put fixed ones in their place.
    """

    def __init__(
        self, conv: nn.Conv2d, jitter: int = 1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.conv = conv
        self.jitter = checks.whole("jitter", jitter, 1)
        self.generator = generator
        self.draw: Callable[[], tuple[int, int]] = self._random_offset

    def _random_offset(self) -> tuple[int, int]:
        across, down = torch.randint(2 * self.jitter + 1, (2,), generator=self.generator).tolist()
        return across, down

    def forward(self, x: Tensor, offset: tuple[int, int] | None = None) -> Tensor:
        """(batch, channels, height, width) -> as the convolution's, with the same shape.

        Maps that are too small to be reflected go through the plain convolution, with a warning.

        Raises:
            ValueError: an offset that is not between 0 and 2 jitter.
        """
        j = self.jitter
        height, width = x.shape[-2:]
        if min(height, width) <= j:
            warnings.warn(
                f"a map of {height} x {width} is too small for a jitter of {j}: not swung",
                stacklevel=2,
            )
            return self.conv(x)
        across, down = self.draw() if offset is None else offset
        for name, place in (("width", across), ("height", down)):
            checks.between(f"offset along the {name}", place, 0, 2 * j)
        moved: Tensor = _Move.apply(x, down - j, across - j)
        return self.conv(moved)


class _Move(torch.autograd.Function):
    """Maps read some pixels further down and across, mirrored at the edges: padding by reflection
    and a crop, in the order in memory of the maps, as is the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: int, across: int) -> Tensor:
        ctx.pieces = [
            ((..., row, column), (..., from_row, from_column))
            for row, from_row in _pieces(x.shape[-2], down)
            for column, from_column in _pieces(x.shape[-1], across)
        ]
        out = torch.empty_like(x)
        for place, source in ctx.pieces:
            out[place] = x[source]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        back = torch.zeros_like(gradient)
        for place, source in ctx.pieces:
            back[source] += gradient[place]
        return back, None, None


def _pieces(size: int, by: int) -> list[tuple[slice, slice]]:
    """(where to, where from) of a line that is read `by` places further on, at most size - 1."""
    if by >= 0:
        whole = slice(0, size - by), slice(by, size)
        mirrored = [(size - by + k, size - 2 - k) for k in range(by)]
    else:
        whole = slice(-by, size), slice(0, size + by)
        mirrored = [(-by - 1 - k, 1 + k) for k in range(-by)]
    return [whole, *((slice(a, a + 1), slice(b, b + 1)) for a, b in mirrored)]


def is_strided(module: nn.Module) -> bool:
    """Whether a module is a convolution that swing convolution takes the place of."""
    return isinstance(module, nn.Conv2d) and any(stride > 1 for stride in module.stride)


def swing(model: nn.Module, jitter: int = 1, generator: torch.Generator | None = None) -> nn.Module:
    """A copy of the network in which every strided convolution swings, shortcuts' and stem's too.

    Two of them draw independently, even in the two paths of one residual block, as in the official
    code.
    """
    swung = copy.deepcopy(model)
    for name, module in list(swung.named_modules()):
        if is_strided(module):
            replace_module(swung, name, SwingConv2d(module, jitter, generator))
    return swung


def phase_coverage(
    conv: nn.Conv2d, size: tuple[int, int], offsets: list[tuple[int, int]] | None = None
) -> Tensor:
    """How much of the gradient each phase of a stride's grid gets.

    Args:
        conv: a strided convolution.
        size: height and width of its input.
        offsets: swing offsets (width, height) to average over; None is the plain convolution.

    Returns:
        (stride, stride): mean absolute gradient of the sum of squared outputs, over all pixels of
        a phase, all channels and random inputs, divided by the mean over phases.
    """
    swung = SwingConv2d(copy.deepcopy(conv).requires_grad_(False))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, conv.in_channels, *size, generator=generator).to(conv.weight)
    x.requires_grad_(True)
    centre = (swung.jitter, swung.jitter)
    total = torch.zeros_like(x)
    for offset in offsets or [centre]:
        (slope,) = torch.autograd.grad(swung(x, offset).square().sum() / 2, x)
        total += slope
    size_of = total.abs().mean((0, 1))[4:-4, 4:-4]  # away from borders
    down, across = conv.stride
    phases = torch.stack(
        [
            torch.stack([size_of[i::down, j::across].mean() for j in range(across)])
            for i in range(down)
        ]
    )
    return phases / phases.mean()
