"""What every quantiser module has: a start, a frozen state, and codes to be stored."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallnets.losses import to_float32
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.uniform import dequantize, nearest_codes


@dataclass(frozen=True, eq=False)
class Codes:
    """A quantised tensor as it is stored.

    Attributes:
        codes: whole numbers of the tensor's shape: int32, or int64 above 16 bits.
        bits: that one code takes.
        scale, zero: broadcast against the codes, whose values are scale * (codes - zero); a zero
            between two codes means that 0 is no level.
        table: the values of codes 0, 1, ... where levels are not evenly spaced; scale and zero are
            not looked at then.
    """

    codes: Tensor
    bits: int
    scale: Tensor
    zero: Tensor
    table: Tensor | None = None

    @property
    def values(self) -> Tensor:
        """What the codes stand for, in the type of the scale or the table."""
        if self.table is not None:
            return self.table[self.codes]
        return dequantize(self.codes.to(self.scale.dtype), self.scale, self.zero)

    @property
    def stored_bits(self) -> int:
        """Bits of all codes, and 32 for each number that says what they mean."""
        table = 0 if self.table is None else self.table.numel()
        extra = table or self.scale.numel() + int((self.zero != 0).sum())
        return self.codes.numel() * self.bits + 32 * extra


def stored(
    codes: Tensor,
    bits: int,
    scale: Tensor | float = 1.0,
    zero: Tensor | float = 0.0,
    table: Tensor | None = None,
) -> Codes:
    """`Codes` without a graph, of whole numbers in any type."""
    kind = torch.int64 if bits > 16 else torch.int32
    dtype = codes.dtype if codes.is_floating_point() else torch.float32
    scale, zero = (
        torch.as_tensor(one, device=codes.device).detach().to(dtype) for one in (scale, zero)
    )
    table = None if table is None else table.detach()
    return Codes(codes.detach().to(kind), bits, scale, zero, table)


class Quantizer(nn.Module):
    """A tensor in, the same tensor on few levels out, with a straight-through gradient.

    What is learned starts once, from the first tensor that passes in training mode or from `start`,
    and never in evaluation mode; whether it has is part of the state. 32 bits leave a tensor as it
    is. Half precision is computed in float32.

    Args:
        bits: from `least` to 32.

    Attributes:
        started: buffer (): whether there is a start; True from the beginning where none is needed.
        frozen: buffer (): whether nothing here learns or moves any more.
        passing: let tensors through untouched.

    Raises:
        ValueError: other bits; a pass in evaluation mode before the start; a start from nothing,
            from numbers that are not finite, or of a frozen quantiser.
    """

    started: Tensor
    frozen: Tensor
    needs_start = False

    def __init__(self, bits: int, least: int = 1) -> None:
        super().__init__()
        integer_range(bits)
        if bits < least:
            raise ValueError(
                f"bits of {type(self).__name__} must be between {least} and 32; got {bits}"
            )
        self.bits = int(bits)
        self.passing = False
        self.register_buffer("started", torch.tensor(not self.needs_start))
        self.register_buffer("frozen", torch.tensor(False))

    def extra_repr(self) -> str:
        """The width, by which kept trainings are told apart, too."""
        return f"bits={self.bits}"

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Give what is learned its first values, from a tensor like those to come."""
        if bool(self.frozen):
            raise ValueError(f"a frozen {type(self).__name__} keeps its start")
        if x.numel() == 0 or not bool(x.isfinite().all()):
            raise ValueError(
                f"{type(self).__name__} starts from finite values; got shape {tuple(x.shape)}"
            )
        self._start(to_float32(x.detach()))
        self.started.fill_(True)

    def _start(self, x: Tensor) -> None:
        """Nothing is learned."""

    def freeze(self) -> None:
        """Stop learning and moving, for good."""
        if not bool(self.started):
            raise ValueError(f"{type(self).__name__} has no start yet: nothing to freeze")
        self.frozen.fill_(True)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Like `x`, on the levels."""
        if self.passing or self.bits == 32:
            return x
        self.ready(x)
        return self.quantize(to_float32(x)).to(x.dtype)

    def ready(self, x: Tensor) -> None:
        """Start from `x` if that is still to be done."""
        if bool(self.started):
            return
        if not self.training:
            raise ValueError(
                f"{type(self).__name__} has no start yet: calibrate the network, or give it a "
                "batch in training mode"
            )
        self.start(x)

    def held(self, parameter: Tensor) -> Tensor:
        """A parameter, without a gradient where frozen."""
        return parameter.detach() if bool(self.frozen) else parameter

    def quantize(self, x: Tensor) -> Tensor:
        """The method itself, on float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} has no quantize")

    def codes(self, x: Tensor) -> Codes:
        """What is stored of `x`; its values are those of `forward` in evaluation mode.

        Raises:
            ValueError: 32 bits, or no start yet.
        """
        if self.bits == 32:
            raise ValueError("bits must be below 32 for codes; got 32, which leaves numbers alone")
        if not bool(self.started):
            raise ValueError(f"{type(self).__name__} has no start yet")
        return self._codes(to_float32(x.detach()))

    def _codes(self, x: Tensor) -> Codes:
        raise NotImplementedError(f"{type(self).__name__} has no codes")

    def after_step(self, weight: Tensor) -> None:
        """What has to be done after a step of the optimiser, in place; mostly nothing."""

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, value in (*self._parameters.items(), *self._buffers.items()):
            given = state.get(prefix + name)
            if value is not None and given is not None and value.shape != given.shape:
                value.data = value.data.new_empty(given.shape)  # a step a channel, not yet started
        super()._load_from_state_dict(state, prefix, *rest)
        if bool(self.frozen):
            self.requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Grid:
    """Evenly spaced levels: scale * (code - zero) for whole codes from `low` to `high`."""

    scale: Tensor
    low: int
    high: int
    zero: Tensor | float = 0.0

    def codes(self, x: Tensor, bits: int) -> Codes:
        """The nearest levels' codes."""
        found = nearest_codes(x, self.scale, self.low, self.high, self.zero)
        return stored(found, bits, self.scale, self.zero)
