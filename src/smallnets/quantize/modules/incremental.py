"""Powers of two, a share of the weights at a time (INQ).

Zhou et al., Incremental Network Quantization, ICLR 2017: the largest weights of a layer go to their
power of two and stay there, the others are trained on to make up for it, and so on until all are
fixed.
"""

import torch
from torch import Tensor

from smallnets import checks
from smallnets.quantize.modules.base import Codes, Quantizer
from smallnets.quantize.modules.weights import power_codes
from smallnets.quantize.power_of_two import nearest_power, power_range

SHARES = (0.5, 0.75, 0.875, 1.0)
"""Shares of the weights that are fixed after each step (section 3.2)."""


class IncrementalPowerOfTwo(Quantizer):
    """Weights of which a growing share is fixed to powers of two; the rest is still exact.

    The largest and the smallest level are those of the weight at the start.

    Args:
        bits: 2 to 8.

    Attributes:
        exponents: buffer (2,): n1 and n2.
        fixed: buffer like the weight: which weights are; `levels`, where they are.
    """

    exponents: Tensor
    fixed: Tensor
    levels: Tensor
    needs_start = True

    def __init__(self, bits: int) -> None:
        super().__init__(bits, least=2)
        if bits > 8:
            raise ValueError(f"bits of powers of two must be between 2 and 8; got {bits}")
        self.register_buffer("exponents", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("fixed", torch.zeros((), dtype=torch.bool))
        self.register_buffer("levels", torch.zeros(()))

    def _start(self, x: Tensor) -> None:
        self.exponents.copy_(torch.tensor(power_range(x, self.bits)))
        self.fixed = torch.zeros_like(x, dtype=torch.bool)
        self.levels = torch.zeros_like(x)

    @property
    def share(self) -> float:
        """Of the weights that are fixed."""
        return float(self.fixed.double().mean())

    @torch.no_grad()
    def fix(self, weight: Tensor, share: float) -> None:
        """Fix the largest free weights until `share` of all are; those that are fixed stay.

        Raises:
            ValueError: a share outside [0, 1], or no start yet.
        """
        checks.between("share", share, 0, 1)
        if not bool(self.started):
            raise ValueError("IncrementalPowerOfTwo has no start yet")
        more = round(share * weight.numel()) - int(self.fixed.sum())
        if more <= 0:
            return
        size = weight.detach().abs().masked_fill(self.fixed, -1).flatten()
        chosen = torch.zeros_like(size, dtype=torch.bool)
        chosen[size.topk(more).indices] = True
        chosen = chosen.view_as(self.fixed)
        top, bottom = self.exponents.tolist()
        level = nearest_power(weight.detach().to(self.levels.dtype), top, bottom)
        self.levels = torch.where(chosen, level, self.levels)
        self.fixed = self.fixed | chosen

    def quantize(self, x: Tensor) -> Tensor:
        """Fixed weights are their level and get no gradient; free ones pass."""
        return torch.where(self.fixed, self.levels.to(x.dtype), x)

    def _codes(self, x: Tensor) -> Codes:
        if not bool(self.fixed.all()):
            raise ValueError(
                f"all weights must be fixed to have codes; {self.share:.1%} are: fix the rest"
            )
        top, bottom = self.exponents.tolist()
        return power_codes(self.levels.to(x.dtype), top, bottom, self.bits)
