"""Instance norm where channels lie last in memory, with a gradient in closed form.

PyTorch's group norm with as many groups as channels reads small maps channel by channel there. The
same numbers come from sums over positions, which read memory in its order. With m and s the mean
and the deviation of a channel of one image, and z = (x - m) / s,

    y = w z + b,    dL/dx = (w / s) (g - mean(g) - z mean(g z))    for g = dL/dy.
"""

from typing import Any

import torch
from torch import Tensor, nn


class InstanceNorm(nn.GroupNorm):
    """Every channel of every image by itself: group norm with as many groups as channels.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> the same shape; float32 of bfloat16 inputs."""
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if x.device.type != "cpu" or not last:
            return super().forward(x)
        flat = x.permute(0, 2, 3, 1).flatten(1, 2).to(self.weight.dtype)
        normed = normalise_positions(flat, self.weight, self.bias, self.eps)
        return normed.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def normalise_positions(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Instance norm of maps (n, positions, channels), with a gradient of any order."""
    if not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        mean, inverse = _moments(x, eps)
        scale = weight * inverse
        return torch.addcmul(bias - mean * scale, x, scale)
    found: Tensor = _Positions.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    return found


def _moments(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Means and inverse deviations over positions, (n, 1, channels)."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    return mean, torch.rsqrt(variance + eps)


class _Positions(torch.autograd.Function):
    """The formulas above; a gradient that is differentiated again is built of ordinary steps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean, inverse = _moments(x, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.eps = eps
        scale = weight * inverse
        return torch.addcmul(bias - mean * scale, x, scale)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # someone differentiates this again
            mean, inverse = _moments(x, ctx.eps)
        z = (x - mean) * inverse
        sums = g.sum(1, keepdim=True), (g * z).sum(1, keepdim=True)
        of_x = None
        if ctx.needs_input_grad[0]:
            scale = weight * inverse
            constant, along = (-scale / x.shape[1] * one for one in sums)
            of_x = torch.addcmul(torch.addcmul(constant, g, scale), z, along)
        return of_x, sums[1].sum((0, 1)), sums[0].sum((0, 1)), None
