"""Means and variances of channels, and their gradients."""

from typing import Any

import torch
from torch import Tensor

from smallnets.losses import to_float32
from smallnets.models.upsampled import is_channels_last


def channel_moments(x: Tensor, correction: int = 1) -> tuple[Tensor, Tensor]:
    """Means and variances (channels,) of (batch, channels, ...), in float32 or wider.

    As torch.var_mean, several times as fast: sums run along memory, and one pass makes the
    gradient.

    Args:
        x: (batch, channels, ...), n values a channel.
        correction: variances have the divisor n - correction, or 1 if that is less.
    """
    moments: tuple[Tensor, Tensor] = _ChannelMoments.apply(to_float32(x), correction)
    return moments


class _ChannelMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, correction: int) -> tuple[Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        shape = (1, -1, *[1] * (x.dim() - 2))
        mean = _channel_sums(x) / count
        divisor = max(count - correction, 1)
        variance = _channel_sums((x - mean.view(shape)).square_()) / divisor
        ctx.save_for_backward(x, mean)
        ctx.count, ctx.divisor, ctx.shape = count, divisor, shape
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        to_mean, to_variance = gradients
        x, mean = ctx.saved_tensors
        slope = to_variance * (2 / ctx.divisor)
        shift = to_mean / ctx.count - slope * mean
        return torch.addcmul(shift.view(ctx.shape), x, slope.view(ctx.shape)), None


def _channel_sums(x: Tensor) -> Tensor:
    if is_channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(0, 2).sum(0)
    return x.flatten(2).sum(2).sum(0) if x.dim() > 2 else x.sum(0)
