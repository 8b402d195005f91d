"""The layered quantiser: one float weight, and from it the weight of every width.

    q_H = clip(round(w / s_H), -2^(H-1), 2^(H-1) - 1)
    q_b = floor(q_H / 2^d),  d = H - b
    w_b = s_b (q_b + o_b)

with straight-through gradients, in which every floor has the derivative 1 and the cascade therefore
2^-d. For u = dL/dw_b and `inside`, the weights with w / s_H within the range of H bits:

    dL/dw   =  u inside s_b / (s_H 2^d)
    dL/ds_b =  sum u (q_b + o_b)
    dL/ds_H = -sum u inside s_b w / (s_H^2 2^d)

These are our reading of Wu et al.; at b = H they are those of LSQ (Esser et al., 2020).
"""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.quantize.layered.activations import LsqActivation
from smallnets.quantize.layered.codes import RULES, check_widths, levels, offset, rounded
from smallnets.quantize.layered.steps import LEAST, positive
from smallnets.quantize.lsq import lsq_gradient_factor, lsq_start
from smallnets.quantize.rounding import integer_range, scale_gradient
from smallnets.quantize.uniform import nearest_codes, usable

STEPS = ("free", "tied")
GRADIENTS = ("own", "scaled", "raw")
STARTS = ("search", "lsq")
SEARCHED = 2**14  # weights on which a start is searched


class _Valued(torch.autograd.Function):
    """w_b = s_b (q_b + o_b) with the gradients above, written out: nothing is kept for the way back
    but the tensors that exist anyway.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        step_high: Tensor,
        step: Tensor,
        places: Tensor,
        shift: int,
        limits: tuple[float, float],
    ) -> Tensor:
        ctx.save_for_backward(weight, step_high, step, places)
        ctx.shift, ctx.limits = shift, limits
        return step * places

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, step_high, step, places = ctx.saved_tensors
        low, high = ctx.limits
        ratio = weight / step_high
        inside = (ratio >= low) & (ratio <= high)
        passed = upstream * inside * (step / (step_high * 2.0**ctx.shift))
        by_high, by_step = None, None
        if ctx.needs_input_grad[1]:
            by_high = -(passed * ratio).sum_to_size(step_high.shape)
        if ctx.needs_input_grad[2]:
            by_step = (upstream * places).sum_to_size(step.shape)
        return passed, by_high, by_step, None, None, None


def layered_value(
    weight: Tensor,
    step_high: Tensor,
    step: Tensor,
    high: int,
    bits: int,
    rule: str = "mid",
    codes: Tensor | None = None,
) -> Tensor:
    """The weight of a width, w_b; differentiable in the weight and both steps.

    Args:
        weight: float, any shape.
        step_high, step: of the highest width and of this one, broadcastable to the weight. Pass
            the same tensor twice at `bits` = `high`, and `step_high * 2**d` as `step` for tied
            steps; autograd adds up what belongs to one tensor.
        high, bits: highest width, and this one.
        rule: "mid" (default) or "plain" for layered codes; "round" divides and rounds the code,
            "direct" quantises the weight by its own step without regard to others.
        codes: those of `high` bits in float, where they are known already.

    Raises:
        ValueError: steps that are not broadcastable to the weight or, where codes are not given,
            not finite numbers above 0.
    """
    shift = high - bits
    _check_steps(weight, (step_high, step), values=codes is None)
    if rule == "direct":
        places = nearest_codes(weight, step, *integer_range(bits))
        return _Valued.apply(weight, step, step, places, 0, integer_range(bits))
    if codes is None:
        codes = nearest_codes(weight, step_high, *integer_range(high))
    limits = integer_range(high)
    if rule == "round":
        places = rounded(codes, shift, bits)
        limits = (limits[0], integer_range(bits)[1] * 2**shift)
    else:
        places = levels(codes, shift, rule)
    return _Valued.apply(weight, step_high, step, places, shift, limits)


def _check_steps(weight: Tensor, steps: Sequence[Tensor], values: bool) -> None:
    for step in steps:
        shape = tuple(step.shape)
        fits = len(shape) <= weight.ndim and all(
            one in (1, size)
            for one, size in zip(shape[::-1], tuple(weight.shape)[::-1], strict=False)
        )
        if not fits:
            raise ValueError(
                f"steps must be broadcastable to a weight of shape {tuple(weight.shape)}; "
                f"got the shape {shape}"
            )
        if values and not bool(((step > 0) & step.isfinite()).all()):
            raise ValueError(f"steps must be finite and above 0; got {step.flatten()[0].item():g}")


def search_start(weight: Tensor, high: int, low: int, per_channel: bool = False) -> Tensor:
    """A step of `high` bits that also serves when codes are cut.

    Of 40 steps r max|w| / 2^(H-1), r from 0.2 to 1.2, the one with the smallest sum of squared
    errors of the "mid" values at `low` and, if that is fewer, at 4 bits. LSQ's own start is several
    times too wide when cut down from 8 bits. Errors are those of at most 16,384 weights of a tensor
    or channel, drawn at random, the same ones every time.

    Returns:
        () or (c_out, 1, ...), by tensor or by output channel.

    Raises:
        ValueError: a tensor, or a channel, of zeros.
    """
    rows = weight.detach().reshape(len(weight) if per_channel else 1, -1)
    largest = rows.abs().amax(1, keepdim=True)
    _refuse_zeros(0.2 * largest / 2 ** (high - 1))
    if rows.shape[1] > SEARCHED:
        draw = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(0))
        rows = rows[:, draw[:SEARCHED].to(rows.device)]
    best, least = largest, torch.full_like(largest, torch.inf)
    for ratio in torch.linspace(0.2, 1.2, 40, dtype=rows.dtype).tolist():
        step = ratio * largest / 2 ** (high - 1)
        codes = nearest_codes(rows, step, *integer_range(high))
        error = torch.zeros_like(largest)
        for bits in sorted({low, max(low, min(4, high))}):
            cut = step * 2.0 ** (high - bits) * levels(codes, high - bits)
            error += (cut - rows).square().sum(1, keepdim=True)
        best = torch.where(error < least, step, best)
        least = torch.minimum(error, least)
    return best.reshape(-1, *(1,) * (weight.ndim - 1)) if per_channel else best.reshape(())


def _refuse_zeros(step: Tensor) -> None:
    if not usable(step).all():
        raise ValueError(
            "a weight to be quantised must be finite and not zero throughout; got one that is not "
            f"(a step of {step.min().item():g})"
        )


@dataclass(frozen=True)
class WeightRule:
    """How weights are quantised.

    Attributes:
        rule: "mid", "plain", "round" or "direct", see `layered_value`.
        steps: "free", one learned step a width, or "tied", s_b = s_H 2^d.
        gradient: what s_H learns from the widths below H: "own", nothing; "scaled", with the factor
            4^-d / sqrt(n Q_b); "raw", with LSQ's factor of the highest width, which is too much.
        start: of s_H: "search" (see `search_start`) or "lsq".
        per_channel: one step for each output channel, or one for the tensor.

    Raises:
        ValueError: an unknown name.
    """

    rule: str = "mid"
    steps: str = "free"
    gradient: str = "own"
    start: str = "search"
    per_channel: bool = False

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("rule", self.rule, RULES)
        checks.one_of("steps", self.steps, STEPS)
        checks.one_of("gradient", self.gradient, GRADIENTS)
        checks.one_of("start", self.start, STARTS)
        if self.rule == "direct" and self.steps == "tied":
            raise ValueError("the rule direct has free steps; got steps='tied'")

    def weights(self, weight: Tensor, widths: Sequence[int]) -> "CascadeQuantizer":
        """The quantiser of one weight."""
        return CascadeQuantizer(weight, widths, self)

    def inputs(self, widths: Sequence[int], count: str) -> nn.Module:
        """The quantiser of a layer's input."""
        return LsqActivation(widths, count)


class CascadeQuantizer(nn.Module):
    """Steps of one weight tensor, and its value at every width.

    Args:
        weight: the tensor at the start of training; it is not kept.
        widths: trained ones. The highest decides the codes.
        how: rule, steps and gradients.

    Raises:
        ValueError: a weight of zeros, or one bit with LSQ's start (which divides by Q_1 = 0).
    """

    def __init__(
        self, weight: Tensor, widths: Sequence[int], how: WeightRule = WeightRule()
    ) -> None:
        super().__init__()
        self.widths, self.how = check_widths(widths), how
        self.high, self.low = self.widths[0], self.widths[-1]
        self.count = weight.numel()
        if how.start == "lsq":
            if self.high == 1:
                raise ValueError("LSQ's start needs 2 bits or more; got 1: use start='search'")
            _refuse_zeros(weight.detach().abs().amax())
            start = lsq_start(weight, integer_range(self.high)[1], how.per_channel)
            _refuse_zeros(start)
        else:
            start = search_start(weight, self.high, self.low, how.per_channel)
        start = start.detach().to(weight.dtype)
        self.step = nn.Parameter(start.clone())
        if how.steps == "free":
            own = {str(bits): start * 2 ** (self.high - bits) for bits in self.widths[1:]}
            self.steps = nn.ParameterDict({name: nn.Parameter(s) for name, s in own.items()})
        self.register_buffer("least", LEAST * start, persistent=False)
        self._codes: Tensor | None = None
        self._sharing = False
        self.received = self.high
        self.register_buffer("stored", None, persistent=False)

    def extra_repr(self) -> str:
        """Widths and rule, by which kept trainings are told apart, too."""
        return f"{self.widths}, {self.how}"

    def step_of(self, bits: int) -> Tensor:
        """s_b of any width from the lowest to the highest, never below 1e-8.

        An untrained width takes that of the next higher trained one, doubled for every bit between
        them, as it takes its BatchNorm.
        """
        if bits == self.high:
            return positive(self.step)
        if self.how.steps == "tied":
            return positive(self.step) * 2.0 ** (self.high - bits)
        if bits in self.widths:
            return positive(self.steps[str(bits)])
        above = min(width for width in self.widths if width > bits)
        return self.step_of(above) * 2.0 ** (above - bits)

    def forward(self, weight: Tensor, bits: int) -> Tensor:
        """The weight of a width: float, of the weight's shape.

        Raises:
            ValueError: a width outside the lowest to the highest.
        """
        if not self.low <= bits <= self.high:
            raise ValueError(
                f"width must be between {self.low} and {self.high} bits "
                f"(trained: {', '.join(map(str, self.widths))}); got {bits}"
            )
        if self.stored is not None:
            return self.from_stored(bits)
        top, step = self.step_of(self.high), self.step_of(bits)
        if torch.is_grad_enabled():
            top, step = self._learning(top, step, bits)
        rule = self.how.rule
        codes = None if rule == "direct" else self._shared_codes(weight)
        return layered_value(weight, top, step, self.high, bits, rule, codes)

    def _learning(self, top: Tensor, step: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """The same steps with their gradients scaled, or stopped."""
        shift, limit = self.high - bits, max(integer_range(bits)[1], 1)
        factor = lsq_gradient_factor(self.count, limit)
        if shift == 0 or self.how.rule == "direct":
            step = scale_gradient(step, factor)
            return step, step
        gradient, tied = self.how.gradient, self.how.steps == "tied"
        if gradient == "own":
            top = top.detach()
        elif gradient == "scaled":
            top = scale_gradient(top, factor * 4.0**-shift)
        else:
            top = scale_gradient(top, lsq_gradient_factor(self.count, integer_range(self.high)[1]))
        return top, top * 2.0**shift if tied else scale_gradient(step, factor)

    def store(self, codes: Tensor, received: int) -> None:
        """From now on go by codes of `received` bits instead of the weight; nothing is trained."""
        self.stored, self.received = codes, received

    def from_stored(self, bits: int) -> Tensor:
        """The weight of a width, from codes that were stored."""
        if bits > self.received:
            raise ValueError(f"width must be at most the {self.received} bits that have arrived")
        step = self.step_of(bits)
        codes = (self.stored >> (self.received - bits)).to(step.dtype)
        return step * (codes + self.offset(bits))

    def codes(self, weight: Tensor) -> Tensor:
        """Codes of the highest width, int16, in the weight's shape."""
        step = self.step_of(self.high)
        return nearest_codes(weight.detach(), step.detach(), *integer_range(self.high)).to(
            torch.int16
        )

    def offset(self, bits: int) -> float:
        """o_b of the rule."""
        return offset(self.high, bits, self.how.rule)

    @torch.no_grad()
    def clamp_steps(self) -> None:
        """Keep trained steps from falling below a quarter of their start.

        A step of the highest width that runs to zero blows up the gradients of all lower ones,
        which are divided by it.
        """
        self.step.copy_(torch.maximum(self.step, self.least))
        for name, step in getattr(self, "steps", {}).items():
            step.copy_(torch.maximum(step, self.least * 2 ** (self.high - int(name))))

    def _shared_codes(self, weight: Tensor) -> Tensor:
        if self._codes is not None:
            return self._codes
        step = self.step_of(self.high).detach()
        codes = nearest_codes(weight.detach(), step, *integer_range(self.high))
        if self._sharing:
            self._codes = codes
        return codes

    @contextmanager
    def same_codes(self) -> Any:
        """Inside the block the weight does not change: its codes are computed once."""
        self._sharing, self._codes = True, None
        try:
            yield
        finally:
            self._sharing, self._codes = False, None
