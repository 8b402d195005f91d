"""Do networks fit the images, the classes and each other? Asked before any training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smallnets import measure
from smallnets.training.joint import ModelOutputs, observe


def check_network(
    role: str, network: nn.Module, images: Tensor, classes: int, layers: Sequence[str] = ()
) -> ModelOutputs:
    """Push a few images through a network in evaluation mode, and return what it said.

    Args:
        role: what the network is called in errors.
        network: left as it is.
        images: prepared images (n, channels, height, width).
        classes: how many the network should have.
        layers: names of layers that it should have.

    Raises:
        ValueError: it does not take the images, has other classes or no such layer, or says
            something that is not a finite number; one line says what was given.
    """
    try:
        with measure.evaluating(network), torch.no_grad():
            seen = observe(network, images, tuple(layers))
    except RuntimeError as error:
        raise ValueError(
            f"{role} does not take images of shape {tuple(images.shape[1:])}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    logits = seen.logits
    if logits.dim() < 2 or logits.shape[0] != len(images):
        raise ValueError(
            f"{role} must say (images, classes) for {len(images)} images; "
            f"got the shape {tuple(logits.shape)}"
        )
    if logits.shape[-1] != classes:
        raise ValueError(f"{role} has {logits.shape[-1]} classes; the dataset has {classes}")
    if not logits.isfinite().all():
        raise ValueError(f"{role} must say finite numbers; got {logits[0].tolist()}")
    return seen


def check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """A teacher stays as it is, so it may not be made of its student's parameters.

    Raises:
        ValueError: it shares some.
    """
    mine = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in mine for parameter in teacher.parameters()):
        raise ValueError("teachers must not share parameters with the student; got one that does")
