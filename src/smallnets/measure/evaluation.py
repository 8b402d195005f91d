"""Running a network to look at it, and leaving it as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from smallnets.checks import one_of, whole

PRECISIONS = ("float32", "bfloat16")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; then every submodule gets its own mode back.

    A network in training may hold frozen parts in evaluation mode, which `model.train()` would
    wake.
    """
    modes = [(module, module.training) for module in model.modules()]
    if any(mode for _, mode in modes):
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            if module.training != mode:
                module.training = mode


def example_input(model: nn.Module, input_shape: tuple[int, ...], batch: int = 1) -> Tensor:
    """Zeros `(batch, *input_shape)` of the device and dtype of the model's first weights."""
    for side in (batch, *input_shape):
        whole("batch and each side of input_shape", side, 1)
    weights = (t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point())
    like = next(weights, torch.empty(0))
    return like.new_zeros(batch, *input_shape)


def predict(
    model: nn.Module,
    x: Tensor,
    normalise: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 250,
    *,
    precision: str = "float32",
) -> Tensor:
    """Logits (n, classes) of images `x` (n, ...), float32 on the CPU, without a graph.

    The model runs in evaluation mode on its own device and is left in the mode it was in.

    Args:
        model: maps a batch of images to logits.
        x: uint8 or float images.
        normalise: applied to every batch on the model's device. Without it, uint8 images are
            divided by 255 and float images taken as they are.
        batch_size: images per forward pass; does not change the result beyond rounding.
        precision: "float32", or "bfloat16" for autocast.

    Raises:
        ValueError: for no images, a batch size below 1 or an unknown precision.
    """
    whole("batch_size", batch_size, 1)
    one_of("precision", precision, PRECISIONS)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"x must hold at least one image; got shape {tuple(x.shape)}")
    prepare = normalise or _unit_range
    like = next(chain(model.parameters(), model.buffers()), x)
    autocast = torch.autocast(like.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with evaluating(model), torch.inference_mode(), autocast:
        logits = [
            model(prepare(part.to(like.device))).float().cpu() for part in x.split(batch_size)
        ]
    return torch.cat(logits)  # outside inference mode, so that a loss may use them


def _unit_range(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()
