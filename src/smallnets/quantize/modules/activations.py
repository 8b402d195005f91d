"""Quantisers of activations as modules, and of gradients: one grid for a whole tensor."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.quantize.binary import sign
from smallnets.quantize.dorefa import dorefa_activations, dorefa_gradients
from smallnets.quantize.lsq import lsq, lsq_gradient_factor, lsq_start
from smallnets.quantize.modules.base import Codes, Grid, Quantizer, stored
from smallnets.quantize.modules.weights import RANGES
from smallnets.quantize.pact import pact
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.uniform import affine_grid, fake_quantize, search_grid, usable

COUNTS = ("example", "all")
SEARCHED = 65536  # values of a tensor among which a range is searched for, and its ends


class ActQuantizer(Quantizer):
    """A quantiser of activations, whose levels do not depend on the tensor that passes."""

    def grid(self) -> Grid:
        """The levels as they are now."""
        raise NotImplementedError(f"{type(self).__name__} has no grid")

    def _codes(self, x: Tensor) -> Codes:
        return self.grid().codes(x, self.bits)


class AffineAct(ActQuantizer):
    """Levels over the range of what has been seen, 0 always among them.

    Args:
        bits: 1 to 32.
        span: "extremes" is the smallest and the largest value; "search" the range with the least
            squared error at the start, which does not move.
        momentum: in training the range moves so much of the way to that of each batch; 0 holds it.
    """

    least: Tensor
    most: Tensor
    needs_start = True

    def __init__(self, bits: int, span: str = "extremes", momentum: float = 0.1) -> None:
        super().__init__(bits)
        self.span = checks.one_of("span", span, RANGES)
        self.momentum = checks.between("momentum", momentum, 0, 1)
        self.register_buffer("least", torch.zeros(()))
        self.register_buffer("most", torch.ones(()))

    def _start(self, x: Tensor) -> None:
        least, most = x.min().clamp(max=0), x.max().clamp(min=0)
        if self.span == "search" and bool(most > least):
            values = torch.cat([x.flatten()[:: 1 + x.numel() // SEARCHED], least[None], most[None]])
            step, zero = search_grid(
                values, self.bits, per_channel=False, zero_in_range=True, power=2.0
            )
            least, most = -step * zero, step * (2**self.bits - 1 - zero)
        self.least.copy_(least)
        self.most.copy_(most)

    def grid(self) -> Grid:
        """Codes from 0 to 2^bits - 1, and the one that means 0."""
        step, zero = affine_grid(torch.stack([self.least, self.most]), self.bits)
        return Grid(step, *integer_range(self.bits, signed=False), zero)

    def quantize(self, x: Tensor) -> Tensor:
        """Nearest levels; values outside are clipped and get no gradient."""
        moves = self.training and self.span == "extremes" and not bool(self.frozen)
        if moves and self.momentum and x.numel():
            with torch.no_grad():
                self.least.lerp_(x.min().clamp(max=0).to(self.least), self.momentum)
                self.most.lerp_(x.max().clamp(min=0).to(self.most), self.momentum)
        grid = self.grid()
        return fake_quantize(x, grid.scale, grid.low, grid.high, grid.zero)


class LSQAct(ActQuantizer):
    """A learned step (LSQ) for a whole tensor.

    Args:
        bits: 1 to 32; from 2 where codes have a sign.
        signed: whether codes reach below 0; None lets the start decide.
        count: what balances the gradient of the step: the features of one "example" (the paper), or
            of "all" the batch (a public code).
    """

    sign: Tensor
    needs_start = True

    def __init__(self, bits: int, signed: bool | None = None, count: str = "example") -> None:
        super().__init__(bits, least=2 if signed else 1)
        self.count = checks.one_of("count", count, COUNTS)
        self.step = nn.Parameter(torch.ones(()))
        self.register_buffer("sign", torch.tensor(-1 if signed is None else int(signed)))

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        return integer_range(self.bits, signed=bool(self.sign == 1))

    def _start(self, x: Tensor) -> None:
        if int(self.sign) < 0:
            signed = bool((x < 0).any())
            if signed and self.bits == 1:
                raise ValueError("bits of signed activations must be at least 2 for LSQ; got 1")
            self.sign.fill_(int(signed))
        self.step.data = lsq_start(x, self.limits[1])

    def grid(self) -> Grid:
        """As the step is now."""
        return Grid(self.step.detach().abs(), *self.limits)

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.lsq.lsq`."""
        low, high = self.limits
        elements = x[0].numel() if self.count == "example" and x.dim() else x.numel()
        return lsq(x, self.held(self.step), low, high, lsq_gradient_factor(elements, high))


class PACT(ActQuantizer):
    """A learned upper end of the range (PACT): for what follows a ReLU.

    Args:
        bits: 1 to 32.
        alpha: where the range ends at first, above 0; None takes the largest value of the start.
    """

    def __init__(self, bits: int, alpha: float | None = 6.0) -> None:
        self.needs_start = alpha is None
        super().__init__(bits)
        first = 1.0 if alpha is None else float(checks.above("alpha", alpha, 0))
        self.alpha = nn.Parameter(torch.tensor(first))

    def _start(self, x: Tensor) -> None:
        if self.needs_start:
            most = x.max()
            if not bool(usable(most)):
                raise ValueError(f"PACT needs a value above 0; got {float(most):g} as the largest")
            self.alpha.data = most

    def grid(self) -> Grid:
        """2^bits levels from 0 to alpha."""
        low, high = integer_range(self.bits, signed=False)
        return Grid(self.alpha.detach() / high, low, high)

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.pact.pact`."""
        return pact(x, self.held(self.alpha).to(x.dtype), self.bits)

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Keep alpha above 0."""
        self.alpha.clamp_(min=1e-3)


class DoReFaAct(ActQuantizer):
    """2^bits levels in [0, 1] (DoReFa)."""

    def grid(self) -> Grid:
        """It never moves."""
        low, high = integer_range(self.bits, signed=False)
        return Grid(torch.tensor(1 / high), low, high)

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.dorefa.dorefa_activations`."""
        return dorefa_activations(x, self.bits)


class SignAct(ActQuantizer):
    """+1 and -1 (BNN); 0 is positive, and values beyond [-1, 1] get no gradient.

    A convolution's zero padding stays 0.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.binary.sign`."""
        return sign(x)

    def _codes(self, x: Tensor) -> Codes:
        return stored((x >= 0).to(x.dtype), 1, 2.0, 0.5)


class XNORAct(SignAct):
    """Signs whose products are scaled by the mean size of what they were (XNOR-Net)."""

    def size(self, x: Tensor, layer: nn.Module) -> Tensor:
        """K, by which the layer's product is multiplied (XNOR-Net, section 3.2).

        The mean of |x| over the channels, then over each window of a convolution: (batch, 1, H_out,
        W_out); over the features of a linear layer: (..., 1).
        """
        if not isinstance(layer, nn.Conv2d):
            return x.abs().mean(-1, keepdim=True)
        sizes = x.abs().mean(1, keepdim=True)
        box = sizes.new_full((1, 1, *layer.kernel_size), 1 / math.prod(layer.kernel_size))
        return F.conv2d(sizes, box, None, layer.stride, layer.padding, layer.dilation)


class GradientQuantizer(nn.Module):
    """Passes a tensor on; the gradient that comes back through it is rounded (DoReFa).

    Args:
        bits: 1 to 32; 32 leaves gradients alone.
        generator: of the noise that makes the rounding right on average.
    """

    def __init__(self, bits: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        integer_range(bits)
        self.bits, self.generator = int(bits), generator

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself."""
        if self.bits == 32 or not x.requires_grad:
            return x
        passed: Tensor = _RoundedGradient.apply(x, self.bits, self.generator)
        return passed


class _RoundedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: int, generator: torch.Generator | None) -> Tensor:
        ctx.bits, ctx.generator = bits, generator
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (upstream,) = gradients
        wide = upstream.float() if upstream.dtype in (torch.float16, torch.bfloat16) else upstream
        noise = torch.rand(
            wide.shape, dtype=wide.dtype, device=wide.device, generator=ctx.generator
        )
        return dorefa_gradients(wide, ctx.bits, noise - 0.5).to(upstream.dtype), None, None
