"""Learning which way to round: soft bits between the two neighbouring codes of every weight.

Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020. A weight w
on a grid of step s lies between the codes floor(w / s) and floor(w / s) + 1; a logit v says how
much of the one above to take, and a regulariser drives the answer to a clear yes or no.
"""

import math

import torch
from torch import Tensor

from smallnets.checks import above, between, whole

LOW, HIGH = -0.1, 1.1
"""Where the sigmoid is stretched to, gamma and zeta (equation 23): it reaches 0 and 1."""


def rectified_sigmoid(v: Tensor) -> Tensor:
    """Return h(v) = clip(sigmoid(v) (HIGH - LOW) + LOW, 0, 1) (equation 23), like `v`."""
    return (torch.sigmoid(v) * (HIGH - LOW) + LOW).clamp(0, 1)


def rectified_sigmoid_inverse(y: Tensor) -> Tensor:
    """Return the logits with h(logits) = y; raises ValueError for y outside [0, 1]."""
    if not bool(((y >= 0) & (y <= 1)).all()):
        raise ValueError(
            f"soft bits must be between 0 and 1; got {float(y.min())} to {float(y.max())}"
        )
    return -torch.log((HIGH - LOW) / (y - LOW) - 1)


def rounding_regulariser(h: Tensor, beta: float) -> Tensor:
    """Return sum(1 - |2 h - 1|^beta) (equation 24): 0 iff every soft bit is 0 or 1.

    Args:
        h: soft bits, any shape, in [0, 1].
        beta: above 0; large values leave bits near 1/2 alone.
    """
    return (1 - (2 * h - 1).abs().pow(above("beta", beta, 0))).sum()


def beta_schedule(
    iteration: float, total: int, warmup: float = 0.2, start: float = 20.0, end: float = 2.0
) -> float:
    """Return beta at an iteration: `start` for a share `warmup` of `total`, then linearly to `end`.

    Raises ValueError for `total` below 1, `warmup` outside [0, 1) and `end` not above 0.
    """
    whole("total", total, 1)
    above("end", end, 0)
    if between("warmup", warmup, 0, 1) == 1:
        raise ValueError("warmup must be below 1; got 1")
    left = 1 - (iteration / total - warmup) / (1 - warmup)
    return start if iteration < warmup * total else end + (start - end) * max(0.0, left)


def soft_start(w: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return base codes floor(w / step) and the logits whose soft bits make up for the rest.

    Both like `w`. With them `soft_weights` gives `w` back wherever it is not clipped.
    """
    scaled = w.detach() / step
    base = torch.floor(scaled)
    return base, rectified_sigmoid_inverse(scaled - base)


def soft_weights(base: Tensor, logits: Tensor, step: Tensor, zero: Tensor, high: int) -> Tensor:
    """Return step * (clip(base + h(logits) + zero, 0, high) - zero) (equation 22).

    AdaRound learns the logits and holds the step; Genie learns both, with the base held. All but
    `high` broadcast against the weights.
    """
    return step * ((base + rectified_sigmoid(logits) + zero).clamp(0, high) - zero)


def hard_codes(base: Tensor, logits: Tensor, zero: Tensor, high: int) -> Tensor:
    """Return the whole codes that the soft bits have decided for: up where logits >= 0."""
    return (base + (logits >= 0).to(base.dtype) + zero).clamp(0, high)


LIMIT = math.log((HIGH - 0) / (0 - LOW))
"""Size of a logit from which on its soft bit is 0 or 1 and has no gradient: log 11."""
