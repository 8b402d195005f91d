"""Statistics of BatchNorm for one configuration of a supernet."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from smallnets.batches import Batches, Source
from smallnets.surgery import recalibrate


def calibrate(supernet: Any, config: Sequence[int] | None, batches: Batches | Source) -> nn.Module:
    """Estimate the running statistics of a supernet anew for one configuration, in place.

    Statistics are reset, and become the plain mean over the batches. (The published code sets the
    momentum to 1 for every batch, so that the last one alone counts.) A wider configuration needs a
    calibration of its own: channels beyond this one's have a variance of 0 now. Networks without
    BatchNorm are left as they are.

    Args:
        supernet: any with `forward(x, config)`.
        config: widths, None for all.
        batches: inputs, or pairs whose second part is not looked at.

    Returns:
        The supernet.

    Raises:
        ValueError: a configuration that does not fit, or no batch.
    """
    recalibrate(_AtConfig(supernet, supernet.check(config)), batches)
    module: nn.Module = supernet
    return module


class _AtConfig(nn.Module):
    def __init__(self, supernet: nn.Module, config: tuple[int, ...]) -> None:
        super().__init__()
        self.supernet, self.config = supernet, config

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.supernet(x, self.config)
        return out
