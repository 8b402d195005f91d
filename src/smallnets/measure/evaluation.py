"""Running a network to look at it, and leaving it as it was."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from smallnets.batches import Batches, Source, check_labelled, first_weights, moved_to
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
    shape = [int(whole("batch and each side of input_shape", n, 1)) for n in (batch, *input_shape)]
    like = first_weights(model)
    return (torch.empty(0) if like is None else like).new_zeros(shape)


def predict(
    model: nn.Module,
    x: Tensor | Batches | Source,
    normalise: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 250,
    *,
    precision: str = "float32",
) -> Tensor:
    """Logits (n, classes) of images `x` (n, ...), float32 on the CPU, without a graph.

    The model runs in evaluation mode on its own device and is left in the mode it was in.

    Args:
        model: maps a batch of images to logits.
        x: uint8 or float images; or batches, as of a loader, with or without labels, whose inputs
            are of any kind and go to the model one batch at a time.
        normalise: applied to every batch on the model's device, unless the batches say how to
            `prepare` them. Without it, a tensor of uint8 images is divided by 255; a loader's are
            refused; all else is taken as it is. Floating-point numbers take the type of the
            model's weights.
        batch_size: images per forward pass; does not change the result beyond rounding. Batches
            keep their own size.
        precision: "float32", or "bfloat16" for autocast.

    Raises:
        ValueError: for no images, a batch size below 1, an unknown precision, uint8 batches that
            nobody normalises, or outputs that are not one tensor.
    """
    whole("batch_size", batch_size, 1)
    one_of("precision", precision, PRECISIONS)
    if isinstance(x, Tensor) and (x.ndim == 0 or len(x) == 0):
        raise ValueError(f"x must hold at least one image; got shape {tuple(x.shape)}")
    device = _device(model)
    if isinstance(x, Tensor):
        prepare = normalise or _unit_range
        device = x.device if first_weights(model) is None else device
        inputs = (moved_to(model, prepare(part.to(device))) for part in x.split(batch_size))
    else:
        batches = _prepared(model, x, normalise, device).without_labels()
        inputs = (part for part, _ in batches)
    return _outputs(model, inputs, device, precision)


def predict_with_labels(
    model: nn.Module,
    batches: Batches | Source,
    normalise: Callable[[Tensor], Tensor] | None = None,
    *,
    precision: str = "float32",
) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) and labels (n,) of one pass over batches, as of a loader that shuffles.

    Args and Raises: as `predict`; batches must be pairs (inputs, labels), not `labelled=False`.
    """
    one_of("precision", precision, PRECISIONS)
    check_labelled(batches)
    device = _device(model)
    labels: list[Tensor] = []

    def inputs() -> Iterator[Tensor]:
        for part, answers in _prepared(model, batches, normalise, device):
            labels.append(answers.cpu())
            yield part

    logits = _outputs(model, inputs(), device, precision)
    return logits, torch.cat(labels)


def _outputs(
    model: nn.Module, inputs: Iterable[Tensor], device: torch.device, precision: str
) -> Tensor:
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with evaluating(model), torch.inference_mode(), autocast:
        logits = [one_tensor(model(part)).float().cpu() for part in inputs]
    return torch.cat(logits)  # outside inference mode, so that a loss may use them


def _prepared(
    model: nn.Module,
    x: Batches | Source,
    normalise: Callable[[Tensor], Tensor] | None,
    device: torch.device,
) -> Batches:
    """Batches on the model's device, as `predict` gives them to it."""
    batches = x if isinstance(x, Batches) else Batches(x)
    if batches.prepare is None and normalise is not None:
        batches = replace(batches, prepare=lambda part: normalise(part.to(device)))
    return batches.on(model)


def _device(model: nn.Module) -> torch.device:
    weights = first_weights(model)
    return torch.device("cpu") if weights is None else weights.device


def one_tensor(output: object) -> Tensor:
    """What a network returned, if it is a tensor.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"a network must return one tensor; got {type(output).__name__}")
    return output


def _unit_range(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()
