"""Activations of the same width as the weights: one learned step for each width and layer.

LSQ (Esser et al., 2020) with a step a width; nothing of activations is layered or stored.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.quantize.layered.codes import check_widths
from smallnets.quantize.layered.steps import LEAST, positive
from smallnets.quantize.lsq import lsq_gradient_factor, lsq_start
from smallnets.quantize.rounding import integer_range, scale_gradient
from smallnets.quantize.uniform import fake_quantize

COUNTS = ("sample", "batch")


class LsqActivation(nn.Module):
    """Quantises a layer's input at the width that is asked for.

    Args:
        widths: trained ones.
        count: what LSQ's gradient factor counts: the features of the whole "batch" (the public
            code), or of one "sample" (the paper).
        signed: whether codes run below zero; None lets `start` look at the data.
    """

    def __init__(
        self, widths: Sequence[int], count: str = "batch", signed: bool | None = None
    ) -> None:
        super().__init__()
        self.widths = check_widths(widths)
        self.count, self.signed = checks.one_of("count", count, COUNTS), signed
        self.started = False
        steps = {str(bits): nn.Parameter(torch.ones(())) for bits in self.widths}
        self.steps = nn.ParameterDict(steps)
        for bits in self.widths:
            self.register_buffer(f"least_{bits}", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Take the steps 2 mean|x| / sqrt(Q_b) from a first batch, and whether x has a sign.

        Raises:
            ValueError: negative values where codes have no sign, or a batch of zeros.
        """
        negative = bool((x < 0).any())
        if self.signed is False and negative:
            raise ValueError(f"unsigned activations must not be negative; got {float(x.min()):.3g}")
        self.signed = negative if self.signed is None else self.signed
        for bits in self.widths:
            start = lsq_start(x, max(self.limits(bits)[1], 1))
            self.steps[str(bits)].copy_(start)
            self.get_buffer(f"least_{bits}").copy_(LEAST * start)
        self.started = True

    @torch.no_grad()
    def clamp_steps(self) -> None:
        """Keep trained steps from falling below a quarter of their start."""
        for bits in self.widths:
            step = self.steps[str(bits)]
            step.copy_(torch.maximum(step, self.get_buffer(f"least_{bits}")))

    def limits(self, bits: int) -> tuple[int, int]:
        """Smallest and largest code."""
        return integer_range(bits, signed=bool(self.signed))

    def step_of(self, bits: int) -> Tensor:
        """The step of any width from the lowest to the highest; see `CascadeQuantizer.step_of`."""
        above = min(width for width in self.widths if width >= bits)
        return self.steps[str(above)] * 2.0 ** (above - bits)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """x at a width, in float32 and its own shape (batch, ...).

        Raises:
            ValueError: `start` has not been called.
        """
        if not self.started:
            raise ValueError("activation steps have no start; call network.start(images) first")
        low, high = self.limits(bits)
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        step = positive(self.step_of(bits))
        count = x.numel() if self.count == "batch" else x[0].numel()
        factor = lsq_gradient_factor(count, max(high, 1))
        return fake_quantize(x, scale_gradient(step, factor), low, high)

    def get_extra_state(self) -> Tensor:
        """Whether the steps have started, and whether codes have a sign (-1: not known)."""
        return torch.tensor([int(self.started), -1 if self.signed is None else int(self.signed)])

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what `get_extra_state` gave."""
        started, signed = state.tolist()
        self.started, self.signed = bool(started), None if signed < 0 else bool(signed)
