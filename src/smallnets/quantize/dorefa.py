"""DoReFa: weights through tanh, activations and gradients, all of k bits.

Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
Gradients, 2016.
"""

import torch
from torch import Tensor

from smallnets.checks import one_of
from smallnets.quantize.binary import sign
from smallnets.quantize.rounding import integer_range, round_through

SCALES = ("unit", "largest", "mean")


def dorefa_weights(w: Tensor, bits: int, scale: str = "unit") -> Tensor:
    """Return 2 quantise(t / 2 + 1/2) - 1 with t = tanh(w) / max|tanh(w)| (equation 9).

    Args:
        w: the weights of one layer, any shape, not all zero.
        bits: 32 leaves t unrounded.
        scale: "unit" is the paper's range [-1, 1], where one bit means mean|w| * sign(w) with
            derivative 1 (equation 8); "largest" multiplies by max|tanh(w)|, held constant, so that
            a trained network keeps its scale; "mean" multiplies by mean|w|, held constant, at every
            number of bits (the form of Any-Precision networks).
    """
    one_of("scale", scale, SCALES)
    _, high = integer_range(bits, signed=False)
    squashed = w.tanh()
    largest = squashed.abs().max()
    mean = w.detach().abs().mean()
    if not bool((largest > 0) & mean.isfinite()):
        raise ValueError(
            f"DoReFa needs finite weights, and one that is not 0; got shape {tuple(w.shape)}"
        )
    if bits == 1 and scale != "mean":
        return mean * sign(w / mean, clip=None)
    if scale == "largest":
        largest = largest.detach()
    unit = squashed / largest
    if bits < 32:
        unit = 2 * (round_through((unit / 2 + 0.5) * high) / high) - 1
    return {"unit": 1.0, "largest": largest, "mean": mean}[scale] * unit


def dorefa_activations(x: Tensor, bits: int) -> Tensor:
    """Return `x` clipped to [0, 1] and rounded to 2^bits levels (equation 11); 32 bits: clipped."""
    _, high = integer_range(bits, signed=False)
    clipped = x.clamp(0, 1)
    return clipped if bits == 32 else round_through(clipped * high) / high


def dorefa_gradients(gradient: Tensor, bits: int, noise: Tensor) -> Tensor:
    """Return a gradient rounded to `bits` bits, example by example (equation 12).

    Args:
        gradient: (n, ...).
        noise: like `gradient`, uniform in [-1/2, 1/2]: it makes the rounding unbiased.

    Raises:
        ValueError: a gradient that is not finite.
    """
    _, high = integer_range(bits, signed=False)
    dims = tuple(range(1, gradient.dim()))
    span = 2 * gradient.abs().amax(dims, keepdim=True)
    if not bool(span.isfinite().all()):
        raise ValueError(f"DoReFa needs finite gradients; got shape {tuple(gradient.shape)}")
    safe = torch.where(span > 0, span, torch.ones_like(span))
    unit = (gradient / safe + 0.5 + noise / high).clamp(0, 1)
    return span * (torch.round(unit * high) / high - 0.5)
