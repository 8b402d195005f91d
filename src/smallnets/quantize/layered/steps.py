"""Bounds of learned steps, of weights and activations alike."""

from torch import Tensor

SMALLEST = 1e-8  # of a step
LEAST = 0.25  # of its start that a step may shrink to while it is trained


def positive(step: Tensor) -> Tensor:
    """The step, or 1e-8 if it is smaller; the gradient passes either way."""
    return step + (step.clamp_min(SMALLEST) - step).detach()
