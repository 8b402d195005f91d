"""Quantisers of weights and of activations: what is rounded, what is learned, what is held.

Weights (section 3.2 of the chapter) come in five modes, all with the same grid at the start:

- "nearest": round to nearest; nothing is learned
- "adaround": learn which way to round; the step is held
- "naive": learn step and rounding, the integer base follows the step through a straight-through
  floor
- "genie": learn step and rounding; the base stays what it was at the first step (GENIE-M)
- "lsq": learn the step; rounding is straight through
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from smallnets import checks
from smallnets.quantize.adaround import (
    hard_codes,
    rectified_sigmoid,
    rounding_regulariser,
    soft_start,
    soft_weights,
)
from smallnets.quantize.lsq import lsq, lsq_gradient_factor
from smallnets.quantize.rounding import floor_through, integer_range
from smallnets.quantize.uniform import dequantize, fake_quantize, nearest_codes, search_grid

MODES = ("nearest", "adaround", "naive", "genie", "lsq")
LEARNS_BITS = ("adaround", "naive", "genie")
LEARNS_STEP = ("naive", "genie", "lsq")
GRADIENTS = ("plain", "lsq")
MOST_BITS = 16


def check_bits(name: str, bits: int) -> int:
    """Return `bits` if it is from 2 to 16, else raise ValueError."""
    checks.whole(name, bits, 2)
    return int(checks.between(name, bits, 2, MOST_BITS))


class WeightQuantizer(nn.Module):
    """A weight (c_out, ...) and its quantised version, a grid for each output channel.

    Args:
        weight: stays in floating point, untouched.
        bits: 2 to 16.
        mode: one of `MODES`.
        symmetric: grids whose zero point is the middle code, the same for all channels, as integer
            hardware wants it; otherwise grids fit a channel's minimum and maximum.
        zero_in_range: zero points between 0 and the highest code, also for channels of one sign.
        power, ratios: of the search for the grid.

    Attributes:
        step: (c_out, 1, ...), a parameter.
        logit: like the weight, a parameter: the soft bits' logits.
        base, zero: buffers: codes floor(w / first step), and zero points (c_out, 1, ...).
        soft: whether `forward` gives the soft weights that are being learned, or the final ones.
    """

    base: Tensor
    zero: Tensor
    weight: Tensor

    def __init__(
        self,
        weight: Tensor,
        bits: int,
        mode: str = "genie",
        *,
        symmetric: bool = False,
        zero_in_range: bool = False,
        power: float = 2.4,
        ratios: int = 100,
    ) -> None:
        super().__init__()
        self.mode = checks.one_of("mode", mode, MODES)
        self.bits = check_bits("bits", bits)
        self.high = integer_range(bits, signed=False)[1]
        self.soft = False
        weight = weight.detach().clone()
        step, zero = search_grid(
            weight,
            bits,
            symmetric=symmetric,
            zero_in_range=zero_in_range,
            power=power,
            ratios=ratios,
        )
        if symmetric:  # the search's zero point lies between two codes and falls to either
            zero = torch.full_like(zero, 2 ** (bits - 1))
        base, logit = soft_start(weight, step)
        self.register_buffer("weight", weight)
        self.register_buffer("base", base)
        self.register_buffer("zero", zero)
        self.step = nn.Parameter(step, requires_grad=mode in LEARNS_STEP)
        self.logit = nn.Parameter(logit, requires_grad=mode in LEARNS_BITS)

    @property
    def codes(self) -> Tensor:
        """The integers that are stored in the end, from 0 to 2^bits - 1, like the weight."""
        step, zero = self.step.detach(), self.zero
        if self.mode in ("nearest", "lsq"):
            return nearest_codes(self.weight, step, 0, self.high, zero)
        base = torch.floor(self.weight / step) if self.mode == "naive" else self.base
        return hard_codes(base, self.logit.detach(), zero, self.high)

    @property
    def soft_bits(self) -> Tensor:
        """h(logit), like the weight."""
        return rectified_sigmoid(self.logit)

    def regulariser(self, beta: float) -> Tensor:
        """Sum over weights of 1 - |2 h - 1|^beta; 0 where no bits are learned."""
        if self.mode not in LEARNS_BITS:
            return self.step.new_zeros(())
        return rounding_regulariser(self.soft_bits, beta)

    def forward(self) -> Tensor:
        """The quantised weight, soft while it is being learned."""
        if not self.soft:
            return dequantize(self.codes, self.step, self.zero)
        if self.mode == "lsq":
            return fake_quantize(self.weight, self.step, 0, self.high, self.zero)
        if self.mode == "nearest":
            return dequantize(self.codes, self.step, self.zero)
        base = self.base
        if self.mode == "naive":
            base = floor_through(self.weight / self.step)
        return soft_weights(base, self.logit, self.step, self.zero, self.high)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer that computes with quantised weights; its bias stays exact."""

    def __init__(self, layer: nn.Module, weights: WeightQuantizer) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's."""
        weight = self.weights()
        if isinstance(self.layer, _ConvNd):
            return self.layer._conv_forward(x, weight, self.layer.bias)
        return nn.functional.linear(x, weight, self.layer.bias)


class ActivationQuantizer(nn.Module):
    """One step for a whole tensor, found on the first batch and learned from then on (LSQ).

    Args:
        bits: 2 to 16.
        gradient: "plain", as the official code has it, or "lsq" for LSQ's factor on the step's
            gradient.
        power, ratios: of the search for the step.
        sample: about so many values, drawn at random from the batch, and the largest one decide
            where the step starts; None is all of them.

    Attributes:
        step: (), a parameter from the start, so that no optimiser misses it.
        signed: whether codes reach below 0: decided once, by the first batch.
        ready: whether that batch has passed.
        mix: (quantised, exact) -> what is passed on; None passes the quantised tensor.
    """

    def __init__(
        self,
        bits: int,
        *,
        gradient: str = "plain",
        power: float = 2.4,
        ratios: int = 100,
        sample: int | None = None,
    ) -> None:
        super().__init__()
        self.bits = check_bits("bits", bits)
        self.gradient = checks.one_of("gradient", gradient, GRADIENTS)
        self.power, self.ratios, self.sample = power, ratios, sample
        self.step = nn.Parameter(torch.ones(()))
        self.signed = False
        self.ready = False
        self.mix: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest code."""
        return integer_range(self.bits, self.signed)

    def get_extra_state(self) -> dict[str, bool]:
        """What a state dictionary keeps besides the step."""
        return {"signed": self.signed, "ready": self.ready}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        """Take it back."""
        self.signed, self.ready = state["signed"], state["ready"]

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the step and the sign by a batch; warns of a batch of zeros."""
        values = x.detach().flatten()
        self.signed = bool(values.min() < 0)
        if not bool((values != 0).any()):
            warnings.warn(
                "an activation is zero throughout its first batch: its step is arbitrary",
                stacklevel=2,
            )
            self.ready = True
            return
        if self.sample is not None and values.numel() > self.sample:
            most = values[values.abs().argmax()][None]
            draw = torch.Generator().manual_seed(0)
            places = torch.randint(values.numel(), (self.sample,), generator=draw)
            values = torch.cat([values[places.to(values.device)], most])
        step, _ = search_grid(
            values,
            self.bits,
            symmetric=True,
            signed=self.signed,
            per_channel=False,
            power=self.power,
            ratios=self.ratios,
        )
        self.step.data = step.to(x)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Like `x`, on the grid."""
        if not self.ready:
            self.initialise(x)
        low, high = self.limits
        factor = lsq_gradient_factor(x.numel(), high) if self.gradient == "lsq" else 1.0
        quantised = lsq(x, self.step, low, high, factor)
        return quantised if self.mix is None else self.mix(quantised, x)


class QDrop:
    """QDrop: element by element, the quantised value with a probability, else the exact one.

    Args:
        probability: of the quantised value; 1 is BRECQ's way, 0 never shows any.
        generator: draws a fresh coin for every element of every call.
        draws: uniform numbers to use instead, in order; for tests.
    """

    def __init__(
        self,
        probability: float,
        generator: torch.Generator | None = None,
        draws: Iterator[Tensor] | None = None,
    ) -> None:
        self.probability = checks.between("probability", probability, 0, 1)
        self.generator = generator
        self.draws = draws

    def __call__(self, quantised: Tensor, exact: Tensor) -> Tensor:
        if self.probability == 1:
            return quantised
        if self.probability == 0:
            return exact
        if self.draws is not None:
            coins = next(self.draws) < self.probability
        else:
            coins = bernoulli_mask(exact.shape, self.probability, self.generator).to(exact.device)
        return torch.where(coins, quantised, exact)


def bernoulli_mask(
    shape: Sequence[int], probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """Coins: True with a probability (to 1/65536). Four of them from one random number, which
    costs a third of what a random number each does.
    """
    count = math.prod(shape)
    device = generator.device if generator is not None else None
    numbers = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    numbers.random_(-(2**63), None, generator=generator)
    return (numbers.view(torch.int16)[:count] < round(65536 * probability) - 32768).view(*shape)


def quantizers_in(module: nn.Module) -> tuple[list[WeightQuantizer], list[ActivationQuantizer]]:
    """The quantisers inside a module, each once."""
    modules: list[Any] = list(module.modules())
    return (
        [one for one in modules if isinstance(one, WeightQuantizer)],
        [one for one in modules if isinstance(one, ActivationQuantizer)],
    )
