"""Instance norm where channels lie last in memory, with a gradient in closed form: alone, and with
the ReLU and the 2x2 average pooling that follow it in the published ConvNet.

PyTorch's group norm with as many groups as channels reads small maps channel by channel there. The
same numbers come from sums over positions, which read memory in its order. With m and s the mean
and the deviation of a channel of one image, and z = (x - m) / s,

    y = w z + b,    dL/dx = (w / s) (g - mean(g) - z mean(g z))    for g = dL/dy.

Each step of these maps reads half a megabyte an image at the published size, so steps are counted.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.GroupNorm):
    """Every channel of every image by itself: group norm with as many groups as channels.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> the same shape; float32 of bfloat16 inputs."""
        if not channels_last(x):
            return super().forward(x)
        flat = x.permute(0, 2, 3, 1).flatten(1, 2).to(self.weight.dtype)
        normed = normalise_positions(flat, self.weight, self.bias, self.eps)
        return normed.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> bool:
    """Whether maps lie in a processor's memory with their channels last."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return x.device.type == "cpu" and last


def norm_relu_pool(x: Tensor, norm: InstanceNorm) -> Tensor:
    """What follows a convolution in a block of the published ConvNet, in one step where it can be.

    Args:
        x: (n, channels, height, width).
        norm: whose parameters are used.

    Returns:
        (n, channels, height // 2, width // 2), float32 of bfloat16 maps.
    """
    if not channels_last(x) or x.shape[2] % 2 or x.shape[3] % 2:
        return F.avg_pool2d(F.relu(norm(x)), 2)
    maps = x.permute(0, 2, 3, 1).to(norm.weight.dtype)
    given = (maps, norm.weight, norm.bias, norm.eps)
    if torch.is_grad_enabled() and (x.requires_grad or norm.weight.requires_grad):
        pooled: Tensor = _Block.apply(*given)  # type: ignore[no-untyped-call]
    else:
        pooled = _block(*given)[0]
    return pooled.permute(0, 3, 1, 2)


def normalise_positions(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Instance norm of maps (n, positions, channels), with a gradient of any order."""
    if not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        centred, _, inverse = _moments(x, eps)
        return torch.addcmul(bias, centred, weight * inverse)
    found: Tensor = _Positions.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    return found


def _moments(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x without its mean over positions, the mean and the inverse deviation (n, 1, channels)."""
    mean = x.mean(1, keepdim=True)
    centred = x - mean
    variance = centred.square().mean(1, keepdim=True)
    return centred, mean, torch.rsqrt(variance + eps)


class _Positions(torch.autograd.Function):
    """The formulas above; a gradient that is differentiated again is built of ordinary steps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        centred, mean, inverse = _moments(x, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.eps = eps
        return torch.addcmul(bias, centred, weight * inverse)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # someone differentiates this again
            _, mean, inverse = _moments(x, ctx.eps)
        z = (x - mean) * inverse
        sums = g.sum(1, keepdim=True), (g * z).sum(1, keepdim=True)
        of_x = None
        if ctx.needs_input_grad[0]:
            scale = weight * inverse
            constant, along = (-scale / x.shape[1] * one for one in sums)
            of_x = torch.addcmul(torch.addcmul(constant, g, scale), z, along)
        return of_x, sums[1].sum((0, 1)), sums[0].sum((0, 1)), None


def _block(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pooled maps (n, height / 2, width / 2, channels), the rectified ones, and the moments."""
    flat = x.flatten(1, 2)
    centred, mean, inverse = _moments(flat, eps)
    rectified = torch.addcmul(bias, centred, weight * inverse).clamp_min_(0).view_as(x)
    pooled = F.avg_pool2d(rectified.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return pooled, rectified, mean, inverse


class _Block(torch.autograd.Function):
    """Norm, ReLU and pooling of maps (n, height, width, channels)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        pooled, rectified, mean, inverse = _block(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, rectified, mean, inverse)
        ctx.eps = eps
        return pooled

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, rectified, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # someone differentiates this again
            normed = normalise_positions(x.flatten(1, 2), weight, bias, ctx.eps)
            out = F.avg_pool2d(F.relu(normed).view_as(x).permute(0, 3, 1, 2), 2)
            wanted = [
                one
                for one, need in zip((x, weight, bias), ctx.needs_input_grad, strict=False)
                if need
            ]
            found = iter(torch.autograd.grad(out, wanted, g.permute(0, 3, 1, 2), create_graph=True))
            return (*(next(found) if need else None for need in ctx.needs_input_grad[:3]), None)
        each = (0.25 * g).permute(0, 3, 1, 2)
        spread = F.interpolate(each, size=x.shape[1:3]).permute(0, 2, 3, 1)
        spread = torch.ops.aten.threshold_backward(spread, rectified, 0).flatten(1, 2)
        flat = x.flatten(1, 2)
        of_bias = spread.sum(1, keepdim=True)
        of_weight = inverse * ((spread * flat).sum(1, keepdim=True) - mean * of_bias)
        of_x = None
        if ctx.needs_input_grad[0]:
            scale = weight * inverse
            along = -scale * inverse * of_weight / flat.shape[1]
            constant = -scale * of_bias / flat.shape[1] - mean * along
            of_x = torch.addcmul(torch.addcmul(constant, spread, scale), flat, along).view_as(x)
        return of_x, of_weight.sum((0, 1)), of_bias.sum((0, 1)), None
