"""Three values: minus, zero, plus.

TWN (Li et al., Ternary Weight Networks, 2016) computes threshold and scale from the weights; TTQ
(Zhu et al., Trained Ternary Quantization, ICLR 2017) learns one scale for each sign.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from smallnets.checks import between
from smallnets.quantize.uniform import usable


class Ternary(NamedTuple):
    """Weights of three values: `values` like the weights, threshold and scale () or (n, 1, ...)."""

    values: Tensor
    threshold: Tensor
    scale: Tensor


def twn(w: Tensor, per_filter: bool = False) -> Ternary:
    """Return scale * sign(w) where |w| exceeds 0.7 mean|w|, 0 elsewhere (equations 3-6).

    The scale is the mean size of the weights above the threshold. The gradient to `w` is 1.

    Args:
        w: (filters, ...), not all zero (per filter: no filter all zero).
        per_filter: a threshold and a scale for every filter instead of the whole layer.
    """
    size = w.detach().abs()
    dims = tuple(range(1 if per_filter else 0, w.dim()))
    threshold = 0.7 * size.mean(dims, keepdim=per_filter)
    if not bool(usable(threshold).all()):
        raise ValueError(
            f"ternary weights need finite ones, and some that are not 0; got shape {tuple(w.shape)}"
        )
    kept = size > threshold
    scale = (size * kept).sum(dims, keepdim=per_filter) / kept.sum(dims, keepdim=per_filter)
    return Ternary(w + (scale * w.sign() * kept - w).detach(), threshold, scale)


def best_ternary(w: Tensor) -> Ternary:
    """Return the ternary weights with the least squared error of all thresholds, no gradient.

    With the k largest weights kept and their mean as scale the error falls by (their sum)^2 / k;
    all k are tried at once.

    Raises:
        ValueError: weights that are not finite.
    """
    if not bool(w.isfinite().all()):
        raise ValueError(f"ternary weights need finite ones; got shape {tuple(w.shape)}")
    size = w.detach().abs().flatten().sort(descending=True).values
    sums = size.cumsum(0)
    count = int((sums.square() / torch.arange(1, len(size) + 1, device=w.device)).argmax()) + 1
    threshold, scale = size[count - 1], sums[count - 1] / count
    return Ternary(scale * w.detach().sign() * (w.detach().abs() >= threshold), threshold, scale)


def ttq(
    w: Tensor, plus: Tensor, minus: Tensor, ratio: float = 0.05, published_sign: bool = False
) -> Tensor:
    """Return `plus` where w > ratio * max|w|, -`minus` where w is below minus that, 0 between.

    Args:
        w: float weights of one layer, any shape.
        plus, minus: learned sizes of the two values, one number each.
        ratio: of the threshold to the largest weight, between 0 and 1 (the paper's t, 0.05).
        published_sign: the paper's equation 7 sums the gradient of `minus` with a plus sign; since
            the value is -minus, its derivative is minus that sum, which is the default.

    The gradient to `w` is multiplied by plus, 1 or minus in the three zones (equation 8).
    """
    between("ratio", ratio, 0, 1)
    ternary: Tensor = _TrainedTernary.apply(w, plus, minus, ratio, published_sign)
    return ternary


class _TrainedTernary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, w: Tensor, plus: Tensor, minus: Tensor, ratio: float, published_sign: bool
    ) -> Tensor:
        threshold = ratio * w.abs().max()
        above, below = w > threshold, w < -threshold
        ctx.save_for_backward(above, below, plus, minus)
        ctx.direction = 1 if published_sign else -1
        return above * plus - below * minus

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (upstream,) = gradients
        above, below, plus, minus = ctx.saved_tensors
        to_w = upstream * (above * plus + below * minus + ~(above | below))
        to_plus = (upstream * above).sum().reshape(plus.shape)
        to_minus = ctx.direction * (upstream * below).sum().reshape(minus.shape)
        return to_w, to_plus, to_minus, None, None
