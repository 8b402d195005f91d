"""Learned step size quantisation (LSQ): the step is a weight like any other.

Esser et al., Learned Step Size Quantization, ICLR 2020.
"""

from torch import Tensor

from smallnets.checks import at_least, whole
from smallnets.quantize.rounding import scale_gradient
from smallnets.quantize.uniform import fake_quantize, usable


def lsq(
    x: Tensor, step: Tensor, low: int, high: int, gradient_factor: float | Tensor = 1.0
) -> Tensor:
    """Return step * round(clip(x / step, low, high)) with LSQ's gradients (equations 1-3).

    Args:
        x: weights or activations, any shape.
        step: broadcasts against `x`: one number, or (channels, 1, ...) for a step a channel.
        low, high: codes, see `integer_range`; one signed bit has none above 0 and is refused.
        gradient_factor: multiplies the gradient of the step, see `lsq_gradient_factor`.
    """
    return fake_quantize(x, scale_gradient(step, gradient_factor), low, whole("high", high, 1))


def lsq_start(x: Tensor, high: int, per_channel: bool = False) -> Tensor:
    """Return the first step, 2 mean|x| / sqrt(high): () or (channels, 1, ...) (section 2.1).

    Raises ValueError if `x`, or one of its channels, is zero throughout (or next to that: a step
    must be above 0), or holds something that is not finite.
    """
    whole("high", high, 1)
    dims = tuple(range(1, x.dim())) if per_channel else tuple(range(x.dim()))
    size = x.detach().abs()
    mean = size.mean(dims, keepdim=per_channel) if dims else size
    if not bool(mean.isfinite().all()):
        raise ValueError(f"LSQ starts a step from finite values; got shape {tuple(x.shape)}")
    step = 2 * mean / high**0.5
    if not bool(usable(step).all()):
        raise ValueError(f"LSQ cannot start a step from zeros; got shape {tuple(x.shape)}")
    return step


def lsq_gradient_factor(elements: int, high: int) -> float:
    """Return 1 / sqrt(elements * high), which balances step and weights (section 2.2).

    `elements` counts the weights of the layer, or the activations: of one example in the paper, of
    the whole batch in the public code that the golden values come from.
    """
    return float((at_least("elements", elements, 1) * at_least("high", high, 1)) ** -0.5)
