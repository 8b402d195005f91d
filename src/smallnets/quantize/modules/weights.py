"""Quantisers of weights as modules: one class a published method, all called with the weight."""

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.quantize.binary import binary_weights, filter_scale, sign, xnor_latent
from smallnets.quantize.dorefa import SCALES, dorefa_weights
from smallnets.quantize.lsq import lsq, lsq_gradient_factor, lsq_start
from smallnets.quantize.modules.base import Codes, Grid, Quantizer, stored
from smallnets.quantize.power_of_two import power_of_two, power_range
from smallnets.quantize.rounding import integer_range, round_stochastically
from smallnets.quantize.ternary import ttq, twn
from smallnets.quantize.uniform import affine_grid, fake_quantize, search_grid, symmetric_grid

RANGES = ("extremes", "search")


class AffineWeight(Quantizer):
    """Levels from the smallest weight to the largest one, or to the largest size on both sides.

    Args:
        bits: 1 to 32; 2 at least if symmetric.
        symmetric: codes -(2^(bits-1) - 1) .. 2^(bits-1) - 1 without a zero point.
        per_channel: a grid for each filter.
        span: "extremes" follows the weights in every pass; "search" finds the range with the least
            squared error once, at the start.
        stochastic: in training, round up with a probability equal to the fraction: right on
            average, but for values beyond the last level. In evaluation mode and when frozen
            weights go to the nearest level.
        generator: of the random numbers.
    """

    step: Tensor
    zero: Tensor

    def __init__(
        self,
        bits: int,
        symmetric: bool = False,
        per_channel: bool = True,
        *,
        span: str = "extremes",
        stochastic: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.needs_start = checks.one_of("span", span, RANGES) == "search"
        super().__init__(bits, least=2 if symmetric else 1)
        self.symmetric, self.per_channel, self.span = symmetric, per_channel, span
        self.stochastic, self.generator = stochastic, generator
        if self.needs_start:
            self.register_buffer("step", torch.ones(()))
            self.register_buffer("zero", torch.zeros(()))

    def _start(self, x: Tensor) -> None:
        if self.span == "search":
            self.step, self.zero = search_grid(
                x,
                self.bits,
                symmetric=self.symmetric,
                per_channel=self.per_channel,
                zero_in_range=True,
                power=2.0,
            )

    def grid(self, w: Tensor) -> Grid:
        """The levels for a weight as it is now."""
        low, high = integer_range(self.bits, signed=self.symmetric)
        if self.span == "search":
            return Grid(self.step, low, high, 0.0 if self.symmetric else self.zero)
        if self.symmetric:
            return Grid(symmetric_grid(w, self.bits, self.per_channel), -high, high)
        step, zero = affine_grid(w, self.bits, self.per_channel)
        return Grid(step, low, high, zero)

    def quantize(self, x: Tensor) -> Tensor:
        """Nearest levels, or stochastic ones in training."""
        grid = self.grid(x)
        if self.stochastic and self.training and not bool(self.frozen):
            return grid.scale * _stochastic(x / grid.scale, grid, self.generator)
        return fake_quantize(x, grid.scale, grid.low, grid.high, grid.zero)

    def _codes(self, x: Tensor) -> Codes:
        return self.grid(x).codes(x, self.bits)


def _stochastic(x: Tensor, grid: Grid, generator: torch.Generator | None) -> Tensor:
    """Whole numbers next to `x` (in steps), within the grid; the gradient passes inside, its ends
    included, where torch's clamp has none.
    """
    low, high = grid.low - grid.zero, grid.high - grid.zero
    inside = (x >= low - 1e-4) & (x <= high + 1e-4)
    clipped = torch.maximum(torch.minimum(x, torch.as_tensor(high)), torch.as_tensor(low))
    passed = torch.where(inside, x, 0)
    return round_stochastically(passed + (clipped - passed).detach(), generator)


class LSQWeight(Quantizer):
    """A learned step (LSQ), for the whole weight or for each filter.

    Args:
        bits: 2 to 32: one signed bit has no level above 0.
        per_channel: a step for each filter.
    """

    needs_start = True

    def __init__(self, bits: int, per_channel: bool = False) -> None:
        super().__init__(bits, least=2)
        self.per_channel = per_channel
        self.step = nn.Parameter(torch.ones(()))

    def _start(self, x: Tensor) -> None:
        self.step.data = lsq_start(x, integer_range(self.bits)[1], self.per_channel)

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.lsq.lsq`."""
        low, high = integer_range(self.bits)
        return lsq(x, self.held(self.step), low, high, lsq_gradient_factor(x.numel(), high))

    def _codes(self, x: Tensor) -> Codes:
        low, high = integer_range(self.bits)
        return Grid(self.step.detach().abs(), low, high).codes(x, self.bits)


class DoReFaWeight(Quantizer):
    """tanh, then 2^bits levels (DoReFa).

    Args:
        bits: 1 to 32.
        scale: "unit", the paper's range [-1, 1]; "largest" or "mean" keep a trained network's
            scale, see `smallnets.quantize.dorefa.dorefa_weights`.
    """

    def __init__(self, bits: int, scale: str = "unit") -> None:
        super().__init__(bits)
        self.scale = checks.one_of("scale", scale, SCALES)

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.dorefa.dorefa_weights`."""
        return dorefa_weights(x, self.bits, self.scale)

    def _codes(self, x: Tensor) -> Codes:
        values = self.quantize(x)
        high = integer_range(self.bits, signed=False)[1]
        squashed = x.tanh().abs().max()
        mean = x.abs().mean()
        size = {"unit": torch.ones_like(mean), "largest": squashed, "mean": mean}[self.scale]
        size = mean if self.bits == 1 else size
        codes = torch.round((values / size / 2 + 0.5) * high)
        return stored(codes, self.bits, 2 * size / high, high / 2)


class BinaryWeight(Quantizer):
    """Signs (BinaryConnect), times the mean size of each filter (BWN), of centred weights (XNOR).

    After every step of the optimiser weights are clipped to [-1, 1], outside of which they get no
    gradient; see `after_step`.

    Args:
        scale: "none" or "filter".
        centred: take each filter's mean over its input channels away first (XNOR-Net).
    """

    def __init__(self, scale: str = "filter", *, centred: bool = False) -> None:
        super().__init__(1)
        self.scale = checks.one_of("scale", scale, ("none", "filter"))
        self.centred = centred

    def quantize(self, x: Tensor) -> Tensor:
        """+1 and -1, or plus and minus each filter's scale; 0 counts as positive."""
        x = xnor_latent(x) if self.centred else x
        return sign(x) if self.scale == "none" else binary_weights(x)

    def _codes(self, x: Tensor) -> Codes:
        x = xnor_latent(x) if self.centred else x
        size = torch.ones((), device=x.device) if self.scale == "none" else filter_scale(x)
        return stored((x >= 0).to(x.dtype), 1, 2 * size, 0.5)

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Clip the weights that are binarised to [-1, 1], in place."""
        if not bool(self.frozen):
            weight.copy_(xnor_latent(weight) if self.centred else weight.clamp(-1, 1))


class TWN(Quantizer):
    """Ternary weights by the 0.7 rule; `per` is "tensor" or "filter"."""

    def __init__(self, per: str = "tensor") -> None:
        super().__init__(2)
        self.per = checks.one_of("per", per, ("tensor", "filter"))

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.ternary.twn`."""
        return twn(x, self.per == "filter").values

    def _codes(self, x: Tensor) -> Codes:
        found = twn(x, self.per == "filter")
        return stored(x.sign() * (x.abs() > found.threshold), 2, found.scale)


class TTQ(Quantizer):
    """Ternary weights with two learned sizes, which start at the mean sizes of what they stand for.

    `ratio` is that of the threshold to the largest weight, between 0 and 1.
    """

    needs_start = True

    def __init__(self, ratio: float = 0.05, *, published_sign: bool = False) -> None:
        super().__init__(2)
        self.ratio = checks.between("ratio", ratio, 0, 1)
        self.published_sign = published_sign
        self.plus = nn.Parameter(torch.ones(()))
        self.minus = nn.Parameter(torch.ones(()))

    def _start(self, x: Tensor) -> None:
        threshold = self.ratio * x.abs().max()
        if not bool(threshold >= 0) or not bool((x != 0).any()):
            raise ValueError(f"TTQ needs a weight that is not 0; got shape {tuple(x.shape)}")
        for size, side in ((self.plus, x[x > threshold]), (self.minus, -x[x < -threshold])):
            size.data = side.mean() if side.numel() else threshold.clone()

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.ternary.ttq`."""
        plus, minus = (self.held(one).to(x.dtype) for one in (self.plus, self.minus))
        return ttq(x, plus, minus, self.ratio, self.published_sign)

    def _codes(self, x: Tensor) -> Codes:
        threshold = self.ratio * x.abs().max()
        codes = 1 + (x > threshold).int() - (x < -threshold).int()
        table = torch.stack([-self.minus, torch.zeros_like(self.plus), self.plus])
        return stored(codes, 2, table=table.to(x.dtype))


class PowerOfTwo(Quantizer):
    """0 and the powers of two from 2^n2 to 2^n1, of both signs; `bits` is from 2 to 8, or 32."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits, least=2)
        if 8 < bits < 32:
            raise ValueError(f"bits of powers of two must be between 2 and 8, or 32; got {bits}")

    def quantize(self, x: Tensor) -> Tensor:
        """See `smallnets.quantize.power_of_two.power_of_two`."""
        return power_of_two(x, self.bits)

    def _codes(self, x: Tensor) -> Codes:
        return power_codes(self.quantize(x), *power_range(x, self.bits), self.bits)


def power_codes(values: Tensor, top: int, bottom: int, bits: int) -> Codes:
    """Codes of values that are 0 or powers of two from 2^bottom to 2^top, in order of value."""
    sizes = torch.exp2(torch.arange(bottom, top + 1, device=values.device).to(values.dtype))
    table = torch.cat([-sizes.flip(0), sizes.new_zeros(1), sizes])
    return stored(torch.searchsorted(table, values.contiguous()), bits, table=table)
