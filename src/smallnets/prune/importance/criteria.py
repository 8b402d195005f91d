"""Scores of a channel from its gradient, its curvature or its weights: formulas on tensors.

T minibatches are scored one by one, from the gradient of the mean loss of each, and the scores are
averaged: the mean of squares, not the square of a mean.
"""

import torch
from torch import Tensor

from smallnets import checks

KINDS = ("squared", "absolute", "signed")
MODES = ("square then sum", "sum then square")


def oracle(base: Tensor, without: Tensor, kind: str = "squared") -> Tensor:
    """The true importance: what the loss does when a channel is removed.

    Args:
        base: (T,) losses of the whole network.
        without: (T, channels) losses without one channel.
        kind: "squared" (the paper's definition), "absolute" or "signed" differences.

    Returns:
        (channels,) means over the minibatches.
    """
    checks.one_of("kind", kind, KINDS)
    change = without - base[:, None]
    if kind == "squared":
        change = change.square()
    return (change.abs() if kind == "absolute" else change).mean(0)


def taylor_fo(gradients: Tensor) -> Tensor:
    """First-order score of a gate: the mean over minibatches of (dE/dz)^2.

    Args:
        gradients: (T, channels).
    """
    return gradients.square().mean(0)


def taylor_so(gradients: Tensor, curvatures: Tensor) -> Tensor:
    """Second-order score of a gate: the mean of (dE/dz - d2E/dz2 / 2)^2.

    Args:
        gradients, curvatures: (T, channels), first and second derivatives of the loss.
    """
    return (gradients - curvatures / 2).square().mean(0)


def obd(curvatures: Tensor, signed: bool = False) -> Tensor:
    """Optimal-brain-damage score: the size of the mean second derivative.

    Args:
        curvatures: (T, channels).
        signed: keep the sign, as the official code does.
    """
    mean = curvatures.mean(0)
    return mean if signed else mean.abs()


def taylor_fg(gradients: Tensor) -> Tensor:
    """Per-example ("full gradient") score: within a minibatch the sum of the examples' squares.

    Args:
        gradients: (T, batch, channels), each example's part of the gradient of the mean loss.
    """
    return gradients.square().sum(1).mean(0)


def taylor_weight(weight: Tensor, gradient: Tensor, mode: str = "square then sum") -> Tensor:
    """Scores of filters from products of weights and gradients.

    Args:
        weight, gradient: (channels, ...) of one minibatch.
        mode: "square then sum" adds the importances of single weights, "sum then square" is the
            contribution of the filter as a group. The two differ a lot.

    Returns:
        (channels,).
    """
    checks.one_of("mode", mode, MODES)
    products = (weight * gradient).flatten(1)
    if mode == "square then sum":
        return products.square().sum(1)
    return products.sum(1).square()


def taylor_bn(
    scale: Tensor,
    scale_gradient: Tensor,
    shift: Tensor | None = None,
    shift_gradient: Tensor | None = None,
) -> Tensor:
    """First-order score of a gate behind BatchNorm without the gate, of one minibatch.

    dE/dz = gamma dE/dgamma + beta dE/dbeta, exactly. Without the shift it is what the official code
    computes.

    Args:
        scale, scale_gradient: (channels,) gamma and its gradient.
        shift, shift_gradient: (channels,) beta and its gradient.
    """
    product = scale * scale_gradient
    if shift is not None and shift_gradient is not None:
        product = product + shift * shift_gradient
    return product.square()


def taylor_output(output: Tensor, gradient: Tensor) -> Tensor:
    """The predecessor's score (Molchanov et al., 2017) of one layer and minibatch.

    The mean over examples and positions of |gradient * output|, divided by its norm over channels.

    Args:
        output, gradient: (batch, channels, ...).
    """
    size = (output * gradient).abs().transpose(0, 1).flatten(1).mean(1)
    return size / (size.norm() + 1e-8)


def magnitude(weight: Tensor, power: int = 2) -> Tensor:
    """Sum over a filter of |w|^power: weights (channels, ...) -> (channels,)."""
    checks.whole("power", power, 1)
    return weight.abs().pow(power).flatten(1).sum(1)


def bn_scale(scale: Tensor) -> Tensor:
    """Size of a norm's scale, |gamma|: (channels,) -> (channels,)."""
    return scale.abs()


def random_scores(channels: int, generator: torch.Generator) -> Tensor:
    """Scores of no meaning: uniform random numbers (channels,)."""
    return torch.rand(channels, generator=generator, dtype=torch.float64)
